"""The benchmark of the losses' memory counts what it says."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest

PATH = Path(__file__).parents[2] / "benchmarks" / "loss_memory.py"
SMALL = ["--tokens", "64", "--vocab", "1009", "--hidden", "8"]


@pytest.fixture(scope="module")
def benchmark() -> ModuleType:
    spec = importlib.util.spec_from_file_location("loss_memory", PATH)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def test_json_is_one_object_in_which_the_tiled_loss_keeps_less_than_a_tenth(
    benchmark: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    benchmark.main([*SMALL, "--json"])
    kept = json.loads(capsys.readouterr().out)
    full, kernel = ("trl_full_jsd", "trl_full_reverse"), ("trl_kernel_jsd", "trl_kernel_reverse")
    assert set(kept) == {"poise_tiled", "poise_reverse", "trl_topk", *full, *kernel}
    assert all(0 < kept[name] <= 0.1 for name in ("poise_tiled", "poise_reverse", *kernel))
    # Seven tensors of tokens x vocabulary, three, and one with some of tokens x 100.
    assert kept["trl_full_jsd"] == pytest.approx(7.0, abs=0.05)
    assert kept["trl_full_reverse"] == pytest.approx(3.0, abs=0.05)
    assert 1.0 < kept["trl_topk"] < 2.0


def test_the_table_names_every_loss(
    benchmark: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    benchmark.main([*SMALL, "--tile", "2"])
    shown = capsys.readouterr().out
    assert all(
        name in shown
        for name in ("Poise", "head is trained", "Jensen-Shannon", "top 100", "kernel")
    )
    assert "32 tiles of 2 tokens" in " ".join(shown.split())


def test_products_with_the_head_are_counted(benchmark: ModuleType) -> None:
    problem = benchmark.Problem(64, vocabulary=1009, hidden=8, tile=16)
    found = {
        case.key: benchmark.measure(case, problem, peak_too=True).products
        for case in benchmark.cases(problem)
    }
    # Two forwards and the student's gradient; a trained head's too; and what kernels repeat.
    assert found["poise_tiled"] == found["poise_reverse"] == found["trl_full_jsd"] == 3
    assert found[""] == 4
    assert (found["trl_kernel_reverse"], found["trl_kernel_jsd"]) == (5, 7)


def test_a_trained_head_costs_its_own_size_whatever_the_number_of_tokens(
    benchmark: ModuleType,
) -> None:
    extra = []
    for tokens in (32, 256):
        problem = benchmark.Problem(tokens, vocabulary=1009, hidden=8, tile=2)
        frozen, trained = (
            benchmark.measure(case, problem, peak_too=False).kept
            for case in benchmark.cases(problem)[:2]
        )
        assert frozen == pytest.approx(tokens * 8 * 4, abs=8)
        extra.append(trained - frozen)
    assert extra == [1009 * 8 * 4] * 2


def test_a_size_below_one_is_refused(
    benchmark: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        benchmark.main(["--tile", "0"])
    assert "--tile must be at least 1, found 0" in capsys.readouterr().err
