"""What TRL forgets comes back bit for bit; a damaged checkpoint is named and passed over."""

from __future__ import annotations

import errno
import json
import logging
import re
import shutil
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.distributed import DistBackendError
from torch.distributed.checkpoint.api import CheckpointException
from transformers import LlamaForCausalLM

from poise.trl.checkpoints import (
    CheckpointingMixin,
    _is_failed_write,
    _is_lost_connection,
    load_rollouts,
    save_rollouts,
)
from poise.trl.manifest import (
    MANIFEST,
    DamagedCheckpointError,
    begin_checkpoint,
    lacking,
    read_manifest,
    resolve_resume,
    rotate,
    verify,
    write_manifest,
)
from tests.tiny import tiny_config


def _checkpoint(run: Path, step: int, *, is_whole: bool = True) -> Path:
    folder = run / f"checkpoint-{step}"
    (folder / "teacher").mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(bytes(range(256)) * 8)
    (folder / "teacher" / "adapter.bin").write_bytes(b"weights")
    (folder / "trainer_state.json").write_text(json.dumps({"global_step": step}))
    (folder / "empty").touch()
    if is_whole:
        write_manifest(folder)
    return folder


def _flip(path: Path, place: int) -> None:
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)


def _no_manifest(folder: Path) -> None:
    (folder / MANIFEST).unlink()


def _half_manifest(folder: Path) -> None:
    text = (folder / MANIFEST).read_text()
    (folder / MANIFEST).write_text(text[: len(text) // 2])


def _manifest_with_a_changed_key(folder: Path) -> None:
    text = (folder / MANIFEST).read_text()
    (folder / MANIFEST).write_text(text.replace('"bytes"', '"bytfs"', 1))


def _manifest_is_a_folder(folder: Path) -> None:
    (folder / MANIFEST).unlink()
    (folder / MANIFEST).mkdir()


def _later_format(folder: Path) -> None:
    (folder / MANIFEST).write_text('{"format": 4, "entries": []}')


def _truncated(folder: Path) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1])


def _flipped(folder: Path) -> None:
    _flip(folder / "model.safetensors", 1000)


def _missing(folder: Path) -> None:
    (folder / "trainer_state.json").unlink()


DAMAGES: dict[Callable[[Path], None], str] = {
    _no_manifest: rf"checkpoint-20 has no {MANIFEST}: it was not written by Poise",
    _half_manifest: rf"checkpoint-20/{MANIFEST} is unreadable: JSONDecodeError",
    _manifest_with_a_changed_key: rf"checkpoint-20/{MANIFEST} is unreadable: KeyError",
    _manifest_is_a_folder: rf"checkpoint-20/{MANIFEST} is unreadable: IsADirectoryError",
    _later_format: rf"checkpoint-20/{MANIFEST} has format 4, expected 3",
    _truncated: r"checkpoint-20/model.safetensors has 2047 bytes, expected 2048",
    _flipped: r"checkpoint-20/model.safetensors does not have the content that was written",
    _missing: r"checkpoint-20/trainer_state.json is missing",
}
each_damage = pytest.mark.parametrize(
    ("damage", "message"), DAMAGES.items(), ids=[f.__name__.strip("_") for f in DAMAGES]
)


def test_the_manifest_lists_every_file_but_itself(tmp_path: Path) -> None:
    folder = _checkpoint(tmp_path, 20)
    listed = json.loads((folder / MANIFEST).read_text())["files"]
    assert listed.keys() == {
        "model.safetensors",
        "teacher/adapter.bin",
        "trainer_state.json",
        "empty",
    }
    assert {path.name for path in folder.iterdir()} & {f"{MANIFEST}.tmp"} == set()


@each_damage
def test_each_damage_is_named(tmp_path: Path, damage: Callable[[Path], None], message: str) -> None:
    _checkpoint(tmp_path, 10)
    folder = _checkpoint(tmp_path, 20)
    verify(folder)
    damage(folder)
    with pytest.raises(DamagedCheckpointError, match=message):
        resolve_resume(str(folder), tmp_path)


def test_a_file_that_the_disk_refuses_is_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, looks, stat = _checkpoint(tmp_path, 20), list[Path](), Path.stat

    def once(path: Path, **options: Any) -> Any:
        if path.name == "empty":
            looks.append(path)
            if len(looks) > 1:
                raise OSError(116, "Stale file handle")
        return stat(path, **options)

    monkeypatch.setattr(Path, "stat", once)
    assert lacking(folder) == ["empty"]


@each_damage
def test_what_is_not_on_a_disk_is_listed_without_an_error(
    tmp_path: Path, damage: Callable[[Path], None], message: str
) -> None:
    folder = _checkpoint(tmp_path, 20)
    names = ("empty", "rng_state_1.pth")
    assert lacking(folder, names) == ["rng_state_1.pth"]
    damage(folder)
    lost = MANIFEST if MANIFEST in message else message.split()[0].partition("/")[2]
    expected = ["rng_state_1.pth"] if damage is _flipped else ["rng_state_1.pth", lost]
    assert sorted(lacking(folder, names)) == sorted(expected)


@each_damage
@pytest.mark.parametrize("resume", [True, "run"])
def test_a_damaged_newest_is_named_and_passed_over(
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    damage: Callable[[Path], None],
    message: str,
    resume: bool | str,
) -> None:
    before = _checkpoint(tmp_path, 10)
    damage(_checkpoint(tmp_path, 20))
    with caplog.at_level(logging.WARNING, logger="poise"):
        found = resolve_resume(str(tmp_path) if resume == "run" else resume, tmp_path)
    assert found == before
    (record,) = caplog.records
    assert record.getMessage().startswith("Passing over a damaged checkpoint: ")
    assert "checkpoint-20" in record.getMessage()


def test_the_newest_is_that_of_the_highest_step(tmp_path: Path) -> None:
    for step in (100, 9, 20):
        _checkpoint(tmp_path, step)
    (tmp_path / "checkpoint-best").mkdir()
    (tmp_path / "checkpoint-999").write_text("a file")
    assert resolve_resume(True, tmp_path) == tmp_path / "checkpoint-100"


def test_a_run_without_a_whole_checkpoint_names_all_of_them(tmp_path: Path) -> None:
    for step, damage in ((20, _truncated), (10, _no_manifest)):
        damage(_checkpoint(tmp_path, step))
    message = r"no checkpoint is whole: .*checkpoint-20.*2047 bytes.*; .*checkpoint-10 has no"
    with pytest.raises(DamagedCheckpointError, match=message):
        resolve_resume(True, tmp_path)


@pytest.mark.parametrize("resume", [True, "run"])
def test_a_folder_without_a_checkpoint_is_an_error(tmp_path: Path, resume: bool | str) -> None:
    (tmp_path / "metrics.jsonl").touch()
    with pytest.raises(ValueError, match=r"holds no folder checkpoint-<step>; start the run wit"):
        resolve_resume(str(tmp_path) if resume == "run" else resume, tmp_path)


@pytest.mark.parametrize("resume", [True, "absent/checkpoint-3", "file"])
def test_what_is_not_a_folder_is_an_error(tmp_path: Path, resume: bool | str) -> None:
    (tmp_path / "file").touch()
    path = str(tmp_path / resume) if isinstance(resume, str) else resume
    with pytest.raises(ValueError, match=r"cannot resume: .* is not a folder"):
        resolve_resume(path, tmp_path / "absent")


@pytest.mark.parametrize("resume", [None, False])
def test_a_fresh_start_needs_nothing(tmp_path: Path, resume: bool | None) -> None:
    assert resolve_resume(resume, tmp_path / "absent") is None


def _begun(run: Path, step: int) -> Path:
    folder = _checkpoint(run, step)
    begin_checkpoint(folder)
    return folder


def test_a_checkpoint_that_is_written_again_is_not_whole_before_its_end(tmp_path: Path) -> None:
    folder = _begun(tmp_path, 20)
    with pytest.raises(DamagedCheckpointError, match="it was not written to its end"):
        verify(folder)
    write_manifest(folder)
    verify(folder)


def test_a_manifest_says_what_wrote_the_checkpoint(tmp_path: Path) -> None:
    folder = _checkpoint(tmp_path, 20)
    assert read_manifest(folder)["run"] == {}
    write_manifest(folder, {"method": "iga", "ranks": 4})
    assert read_manifest(folder)["run"] == {"method": "iga", "ranks": 4}


# "auto": what a scheduler hands on each time that it starts a run.


@pytest.mark.parametrize("run", [".", "absent"])
def test_auto_begins_where_nothing_is(tmp_path: Path, run: str) -> None:
    assert resolve_resume("auto", tmp_path / run) is None


def test_auto_begins_where_no_checkpoint_was_finished(tmp_path: Path) -> None:
    _begun(tmp_path, 10)
    half = _checkpoint(tmp_path, 20, is_whole=False)
    (half / "trainer_state.json").unlink()
    assert resolve_resume("auto", tmp_path) is None


def test_auto_goes_on_from_the_newest_whole_checkpoint(tmp_path: Path) -> None:
    whole = _checkpoint(tmp_path, 10)
    _begun(tmp_path, 20)
    assert resolve_resume("auto", tmp_path) == whole


def test_auto_does_not_begin_over_a_checkpoint_that_was_finished(tmp_path: Path) -> None:
    _truncated(_checkpoint(tmp_path, 20))
    with pytest.raises(DamagedCheckpointError, match="no checkpoint is whole"):
        resolve_resume("auto", tmp_path)


def test_auto_does_not_begin_over_a_run_of_transformers(tmp_path: Path) -> None:
    _checkpoint(tmp_path, 20, is_whole=False)
    with pytest.raises(DamagedCheckpointError, match="not written by Poise"):
        resolve_resume("auto", tmp_path)


# Rotation


def _steps(run: Path) -> set[int]:
    return {int(path.name.partition("-")[2]) for path in run.iterdir()}


@pytest.mark.parametrize(
    ("limit", "kept"),
    [(None, {1, 2, 3, 9}), (0, {1, 2, 3, 9}), (1, {3}), (2, {2, 3}), (3, {1, 2, 3})],
)
def test_what_is_not_whole_goes_first(tmp_path: Path, limit: int | None, kept: set[int]) -> None:
    for step in (1, 2, 3):
        _checkpoint(tmp_path, step)
    _begun(tmp_path, 9)  # of a life before, which came further
    rotate(tmp_path, limit, tmp_path / "checkpoint-3")
    assert _steps(tmp_path) == kept


def test_the_best_and_the_newest_stay(tmp_path: Path) -> None:
    for step in (1, 2, 3):
        _checkpoint(tmp_path, step)
    rotate(tmp_path, 1, tmp_path / "checkpoint-3", "elsewhere/checkpoint-1")
    assert _steps(tmp_path) == {1, 3}


def test_what_is_half_deleted_does_not_look_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for step in (1, 2):
        _checkpoint(tmp_path, step)
    monkeypatch.setattr(shutil, "rmtree", lambda path, ignore_errors: None)  # killed here
    rotate(tmp_path, 1, tmp_path / "checkpoint-2")
    with pytest.raises(DamagedCheckpointError, match="has no"):
        verify(tmp_path / "checkpoint-1")


# What TRL forgets


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


@pytest.mark.parametrize("is_tied", [True, False])
@pytest.mark.parametrize("lost", ["model.norm.weight", "model.embed_tokens.weight", None])
def test_only_weights_that_were_not_loaded_are_missing(
    is_tied: bool, lost: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    monkeypatch.setattr("transformers.trainer.logger.warning", said.append)
    trainer = object.__new__(CheckpointingMixin)
    trainer.model = LlamaForCausalLM(tiny_config(tie_word_embeddings=is_tied))
    missing = {"lm_head.weight", lost}
    weights = {k: v for k, v in trainer.model.state_dict().items() if k not in missing}
    trainer._issue_warnings_after_load(trainer.model.load_state_dict(weights, strict=False))
    whole = is_tied and lost != "model.embed_tokens.weight"
    expected = missing - {None} - ({"lm_head.weight"} if whole else set())
    assert set(re.findall(r"'([\w.]+)'", "".join(said))) == expected


def test_what_a_killed_run_left_is_no_part_of_the_next_checkpoint(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoint-2"
    begin_checkpoint(folder)
    for left in ("poise_rollouts_1.safetensors", "poise_teacher/__0_0.distcp"):
        (folder / left).parent.mkdir(exist_ok=True)
        (folder / left).write_text("of the killed run")
    begin_checkpoint(folder)
    (folder / "model.safetensors").write_text("new")
    write_manifest(folder)
    verify(folder)
    assert {path.name for path in folder.iterdir()} == {MANIFEST, "model.safetensors"}


def test_a_disk_that_is_full_of_shards_is_a_failed_write() -> None:
    stack = traceback.StackSummary()
    full = CheckpointException("save", {1: (OSError(errno.ENOSPC, "No space left"), stack)})
    other = CheckpointException("save", {1: (KeyError("name"), stack)})
    assert _is_failed_write(full) and not _is_failed_write(other)


@pytest.mark.parametrize(
    ("message", "is_lost"),
    [
        ("[../gloo/transport/tcp/pair.cc:547] Connection closed by peer [127.0.0.1]:5", True),
        ("ncclRemoteError: A call failed possibly due to a network error", True),
        ("NCCL error: unhandled cuda error, out of memory", False),
    ],
)
def test_only_the_end_of_another_rank_is_called_so(message: str, is_lost: bool) -> None:
    assert _is_lost_connection(DistBackendError(message)) == is_lost
