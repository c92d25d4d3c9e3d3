"""What the host forgets comes back bit for bit."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from poise.trl.resume import (
    TEACHER,
    check_fits,
    load_json,
    load_rollouts,
    rollouts_file,
    save_json,
    save_rollouts,
)


def test_micro_batches_come_back_bitwise_and_in_order(tmp_path: Path) -> None:
    whole = torch.randn(36, 3)
    rollouts = [
        {
            "completion_ids": torch.arange(i, i + 6).view(2, 3),
            "old.per.token": whole[3 * i : 3 * i + 3],  # slices of one memory
            "mask": torch.tensor([True, False]),
            "transposed": whole[:4].to(torch.bfloat16).T,
            "scalar": torch.tensor(float("nan")),
            "absent": None,
        }
        for i in range(12)  # two digits, so that order is not that of the names
    ]
    save_rollouts(tmp_path / "file", rollouts)
    loaded = load_rollouts(tmp_path / "file", "cpu")
    assert loaded is not None and len(loaded) == 12
    for saved, found in zip(rollouts, loaded, strict=True):
        assert found.keys() == saved.keys() - {"absent"}
        for name, tensor in found.items():
            assert tensor is not None and saved[name] is not None
            assert tensor.dtype == saved[name].dtype  # type: ignore[union-attr]
            torch.testing.assert_close(tensor, saved[name], rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("empty", [None, []])
def test_an_empty_buffer_stays_empty(tmp_path: Path, empty: list[object] | None) -> None:
    save_rollouts(tmp_path / "file", empty)  # type: ignore[arg-type]
    assert load_rollouts(tmp_path / "file", "cpu") is None


def test_gradients_are_not_saved(tmp_path: Path) -> None:
    save_rollouts(tmp_path / "file", [{"logps": torch.ones(2, requires_grad=True)}])
    loaded = load_rollouts(tmp_path / "file", "cpu")
    assert loaded is not None and not loaded[0]["logps"].requires_grad  # type: ignore[union-attr]


def test_each_rank_has_its_own_file() -> None:
    assert rollouts_file(0) != rollouts_file(1)


def test_a_checkpoint_fits_a_run_that_finds_all_of_its_own(tmp_path: Path) -> None:
    for rank in range(2):
        save_rollouts(tmp_path / rollouts_file(rank), None)
    check_fits(tmp_path, ranks=2, has_teacher=False)
    with pytest.raises(ValueError, match=r"with 3 ranks: it holds the rollouts of 2; resume with"):
        check_fits(tmp_path, ranks=3, has_teacher=False)
    with pytest.raises(ValueError, match=r"that changes: it holds no teacher; resume"):
        check_fits(tmp_path, ranks=2, has_teacher=True)
    save_file({"weight": torch.ones(1)}, tmp_path / TEACHER)
    check_fits(tmp_path, ranks=2, has_teacher=True)


def test_plain_values_come_back(tmp_path: Path) -> None:
    state = {"step": 7, "multiplier": {"reference": None, "steps": 3}, "rate": 0.1}
    save_json(tmp_path / "state.json", state)
    assert load_json(tmp_path / "state.json") == state
