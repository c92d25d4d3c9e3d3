"""A full disk, a checkpoint of another kind, a rank that fails: named, and nothing is lost."""

from __future__ import annotations

import json
import os
import re
import resource
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig
from safetensors.torch import load_file

from poise import IGATrainer, PGPOTrainer
from poise.trl.checkpoints import CheckpointWriteError, LostRankError
from poise.trl.manifest import MANIFEST, verify
from tests.invariants.iga_worker import make_trainer
from tests.processes import run_ranks, start_ranks
from tests.tiny import tiny_dataset, tiny_isomers, vowel_reward

SAVED: dict[str, Any] = {"save_strategy": "steps", "save_steps": 1, "save_total_limit": 1}


@pytest.fixture
def make(tiny_model_path: str, make_config: Callable[..., Any]) -> Callable[..., Any]:
    def build(**settings: Any) -> PGPOTrainer:
        return PGPOTrainer(
            model=tiny_model_path,
            reward_funcs=vowel_reward,
            args=make_config(**SAVED | settings),
            train_dataset=tiny_dataset(),
        )

    return build


@contextmanager
def _files_of_at_most(size: int) -> Iterator[None]:
    """The system refuses longer ones in the middle of a write, as a full disk does."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


# What is written by Python, by safetensors and by torch; their files are longer in this order.
@pytest.mark.parametrize(
    ("size", "file"),
    [(300, "config.json"), (20_000, "model.safetensors"), (150_000, "optimizer.pt")],
)
def test_a_full_disk_ends_the_run_and_leaves_the_checkpoint_before(
    size: int, file: str, tmp_path: Path, make: Callable[..., Any]
) -> None:
    run = tmp_path / "run"
    trainer = make()
    save = trainer._save_checkpoint

    def save_to_a_full_disk(model: Any, trial: Any) -> None:
        if trainer.state.global_step < 2:
            return save(model, trial)
        with _files_of_at_most(size):
            save(model, trial)

    trainer._save_checkpoint = save_to_a_full_disk
    message = (
        rf"{run}/checkpoint-2 could not be written \(.+\): \d+ MB are free there, about \d+ MB "
        rf"needed.* then go on from {run}/checkpoint-1 by resume_from_checkpoint=True"
    )
    with pytest.raises(CheckpointWriteError, match=message):
        trainer.train()
    whole_size, *rest = (path.stat().st_size for path in sorted(run.glob(f"checkpoint-*/{file}")))
    assert all(size < whole_size for size in rest)  # or it was not even begun
    verify(run / "checkpoint-1")
    make().train(resume_from_checkpoint=True)
    whole = make(output_dir=str(tmp_path / "whole"))
    whole.train()
    expected, found = (
        load_file(folder / "checkpoint-3" / "model.safetensors")
        for folder in (tmp_path / "whole", run)
    )
    assert all(torch.equal(found[key], weight) for key, weight in expected.items())


def test_what_fails_beside_the_disk_keeps_its_own_error(
    make: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: Any) -> None:
        raise RuntimeError("CUDA out of memory")

    trainer = make()
    monkeypatch.setattr(trainer, "_save_state", fail)
    with pytest.raises(RuntimeError, match="CUDA out of memory"):
        trainer.train()


@pytest.mark.parametrize(
    ("name", "other"),
    [("method", "iga"), ("engine", "FSDP with SHARDED_STATE_DICT"), ("ranks", 2)],
)
def test_a_checkpoint_of_another_kind_is_refused(
    name: str, other: Any, tmp_path: Path, make: Callable[..., Any]
) -> None:
    make(max_steps=1).train()
    path = tmp_path / "run" / "checkpoint-1" / MANIFEST
    manifest = json.loads(path.read_text())
    assert manifest["run"] == {"method": "pgpo", "engine": "DDP", "ranks": 1}
    manifest["run"][name] = other
    path.write_text(json.dumps(manifest))
    with pytest.raises(ValueError, match=f"it was written with {name} {other}, this run has"):
        make().train(resume_from_checkpoint=True)


def _lose(checkpoint: Path, name: str) -> None:
    """A file that another machine has, and so its manifest, not this one."""
    (checkpoint / name).unlink()
    manifest = json.loads((checkpoint / MANIFEST).read_text())
    del manifest["files"][name]
    (checkpoint / MANIFEST).write_text(json.dumps(manifest))


@pytest.mark.parametrize(
    "name", ["poise_rollouts_0.safetensors", "poise_state.json", "poise_log_0.json"]
)
def test_a_file_that_is_not_on_this_disk_is_named(
    name: str, tmp_path: Path, make: Callable[..., Any]
) -> None:
    make(max_steps=1).train()
    _lose(tmp_path / "run" / "checkpoint-1", name)
    with pytest.raises(ValueError, match=rf"checkpoint-1: expected {name} \(rank 0\) there on"):
        make().train(resume_from_checkpoint=True)


def test_a_file_of_iga_that_is_not_on_this_disk_is_named(
    tmp_path: Path, make_iga_config: Callable[..., Any], tiny_model_path: str
) -> None:
    def make_iga() -> IGATrainer:
        return IGATrainer(
            model=tiny_model_path,
            args=make_iga_config(**SAVED, max_steps=1),
            train_dataset=tiny_isomers(),
            peft_config=LoraConfig(r=2, target_modules="all-linear"),
        )

    make_iga().train()
    for name in ("poise_state_0.json", "poise_warm_starts_0.safetensors"):
        _lose(tmp_path / "run" / "checkpoint-1", name)
    with pytest.raises(
        ValueError, match=r"poise_state_0.json \(rank 0\), poise_warm_starts_0.*\(rank 0\) there"
    ):
        make_iga().train(resume_from_checkpoint=True)


def _train_to_a_checkpoint(kind: str, model: str, folder: Path, resume: bool) -> None:
    """Each rank with a disk of its own, as on two machines, if there is one."""
    from poise import PGPOConfig
    from tests.tiny import BRAKE, RUN

    own = folder / f"disk-{os.environ['RANK']}"
    os.chdir(own if own.is_dir() else folder)
    if kind == "pgpo":
        args = PGPOConfig(output_dir="run", max_steps=1 + resume, **RUN | BRAKE | SAVED)
        trainer: Any = PGPOTrainer(
            model=model, reward_funcs=vowel_reward, args=args, train_dataset=tiny_dataset()
        )
    else:
        trainer = make_trainer(model, "run", max_steps=1 + resume, **SAVED)
    try:
        trainer.train(resume_from_checkpoint=resume)
    except ValueError as error:
        (folder / f"error-{os.environ['RANK']}").write_text(f"{error}")


@pytest.mark.parametrize("kind", ["pgpo", "iga"])
def test_what_one_rank_lacks_stops_all_of_them(
    kind: str, tmp_path: Path, tiny_model_path: str
) -> None:
    """Transformers goes on without an optimizer, a scheduler or random numbers, in silence."""
    train = (2, _train_to_a_checkpoint, kind, tiny_model_path, tmp_path)
    run_ranks(*train, False)
    for rank in (0, 1):
        shutil.copytree(tmp_path / "run", tmp_path / f"disk-{rank}" / "run")
    other = tmp_path / "disk-1" / "run" / "checkpoint-1"
    lost = ["optimizer.pt", "scheduler.pt", "poise_log_1.json"]
    for name in lost:
        (other / name).unlink()
    _lose(other, "rng_state_1.pth")
    os.truncate(other / "trainer_state.json", 1)
    run_ranks(*train, True)
    for rank in (0, 1):
        text = (tmp_path / f"error-{rank}").read_text()
        named = set(re.findall(r"(\S+) \(rank 1\)", text))
        assert named == {*lost, "rng_state_1.pth", "trainer_state.json"}
        assert "(rank 0)" not in text and "there on the disk of that rank" in text


def test_iga_refuses_a_checkpoint_of_pgpo(
    tmp_path: Path,
    make: Callable[..., Any],
    make_iga_config: Callable[..., Any],
    tiny_model_path: str,
) -> None:
    make(max_steps=1).train()
    config = make_iga_config(output_dir=str(tmp_path / "iga"))
    trainer = IGATrainer(
        model=tiny_model_path,
        args=config,
        train_dataset=tiny_isomers(),
        peft_config=LoraConfig(r=2, target_modules="all-linear"),
    )
    with pytest.raises(ValueError, match="written with method pgpo, this run has method iga"):
        trainer.train(resume_from_checkpoint=str(tmp_path / "run" / "checkpoint-1"))


def test_a_checkpoint_of_transformers_is_named_and_passed_over(
    tmp_path: Path, make: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    foreign = tmp_path / "foreign"
    make(output_dir=str(foreign), exact_resume=False).train()
    make(max_steps=1).train()
    shutil.copytree(foreign / "checkpoint-3", tmp_path / "run" / "checkpoint-3")
    trainer = make(max_steps=2)
    trainer.train(resume_from_checkpoint=True)
    assert f"checkpoint-3 has no {MANIFEST}: it was not written by Poise" in caplog.text
    assert trainer.state.global_step == 2
    with pytest.raises(ValueError, match="not written by Poise with exact_resume=True"):
        make().train(resume_from_checkpoint=str(foreign / "checkpoint-3"))


def test_auto_without_exact_resume_is_the_last_checkpoint(
    make: Callable[..., Any], tmp_path: Path
) -> None:
    for steps in (1, 2):
        trainer = make(exact_resume=False, max_steps=steps)
        trainer.train(resume_from_checkpoint="auto")
        assert trainer.state.global_step == steps
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [1, 1, 2, 2]


def _fails_on_rank_1(completions: list[str], **columns: Any) -> list[float]:
    _fails_on_rank_1.calls += 1  # type: ignore[attr-defined]
    if os.environ["RANK"] == "1" and _fails_on_rank_1.calls == 4:  # type: ignore[attr-defined]
        raise KeyError("answer")
    return vowel_reward(completions)


_fails_on_rank_1.calls = 0  # type: ignore[attr-defined]


def _train_until_it_fails(model: str, folder: Path) -> None:
    from poise import PGPOConfig
    from tests.tiny import BRAKE, RUN

    args = PGPOConfig(output_dir=str(folder), max_steps=8, **RUN | BRAKE | SAVED)
    trainer = PGPOTrainer(
        model=model, reward_funcs=_fails_on_rank_1, args=args, train_dataset=tiny_dataset()
    )
    try:
        trainer.train()
    except (LostRankError, KeyError) as error:
        (folder / f"error-{os.environ['RANK']}").write_text(f"{error}")
        raise


@pytest.mark.slow
def test_a_rank_that_fails_takes_the_other_down_without_a_launcher(
    tmp_path: Path, tiny_model_path: str
) -> None:
    processes = start_ranks(2, _train_until_it_fails, tiny_model_path, tmp_path)
    processes[1].join(500)
    processes[0].join(60)
    ends = [process.exitcode for process in processes]
    for process in processes:
        process.kill()
    assert ends == [1, 1]
    assert (tmp_path / "error-1").read_text() == "'answer'"
    assert re.fullmatch(
        r"rank 0 stopped at step (\d) because another rank has ended, whose own message says why; "
        rf"go on from {tmp_path}/checkpoint-\1 by resume_from_checkpoint=True",
        (tmp_path / "error-0").read_text(),
    )
