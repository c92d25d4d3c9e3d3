"""`poise pgpo` on the tiny model."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from poise.cli import launch
from poise.cli.pgpo import find_reward
from poise.evaluate.runs import read_run
from poise.trl.manifest import begin_checkpoint
from tests.unit.cli.conftest import check_left

COMMAND = "pgpo"
FLAGS: dict[str, Any] = {
    "dataset_name": "science:chemistry",
    "style": "plain",
    "count": 12,
    "max_steps": 2,
    "save_steps": 1,
    "per_device_train_batch_size": 4,
    "num_generations": 4,
    "max_prompt_length": 40,
    "max_completion_length": 4,
    "include_environment_feedback": "true",
    "distillation_mode": "full_logits",
    "distillation_alpha": 0.5,
    "gradient_checkpointing": "false",
    "bf16": "false",
    "use_cpu": "true",
    "report_to": "none",
    "use_peft": "true",
    "lora_target_modules": "all-linear",
}


def test_a_run_leaves_everything_in_its_folder(
    run: Any, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run() == 0
    check_left(folder, "PGPO")
    assert read_run(folder).config["config.multiplier"] == "distance"
    card = (folder / "README.md").read_text()
    assert "None" not in card
    assert "datasets/science" not in card and "`science:chemistry`" in card
    # A folder holds one run.
    capsys.readouterr()
    assert run() == 2
    error = capsys.readouterr().err
    assert "holds the checkpoints of a run" in error
    assert "by --resume_from_checkpoint auto, or choose another --output_dir" in error
    assert run(resume_from_checkpoint="true", seed=7) == 2
    assert "other settings (seed: 42 -> 7)" in capsys.readouterr().err


def test_auto_begins_a_run_and_goes_on_with_it(run: Any, folder: Path) -> None:
    assert run(resume_from_checkpoint="auto", max_steps=1) == 0
    assert run(resume_from_checkpoint="auto") == 0
    assert (folder / "checkpoint-2").is_dir()
    steps = [
        json.loads(line)["step"] for line in (folder / "metrics.jsonl").read_text().splitlines()
    ]
    assert set(steps) == {1, 2}
    assert run(resume_from_checkpoint="auto", seed=7) == 2  # of another run
    assert run(resume_from_checkpoint="true", max_steps=3) == 0
    assert (folder / "checkpoint-3").is_dir()


def test_auto_begins_where_a_run_was_killed_before_its_first_checkpoint(
    run: Any, folder: Path
) -> None:
    folder.mkdir()
    (folder / "metrics.jsonl").write_text('{"step": 1, "lost": true}\n')
    (folder / "config.yaml").write_text("config:\n  seed: 7\n")
    begin_checkpoint(folder / "checkpoint-1")
    assert run(resume_from_checkpoint="auto") == 0
    assert "lost" not in (folder / "metrics.jsonl").read_text()
    assert (folder / "checkpoint-2").is_dir()


def test_a_rank_that_ends_is_named_with_the_step_and_how_to_go_on(
    run: Any, folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: Any, **options: Any) -> int:
        raise launch.RankFailedError("rank 1 was killed by SIGKILL")

    monkeypatch.setattr(launch, "launch", fail)
    assert run(num_processes=2) == 1
    assert "No checkpoint was written yet: run the same command again" in capsys.readouterr().err
    assert run() == 0
    capsys.readouterr()
    assert run(num_processes=2) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line == (
        "poise pgpo: rank 1 was killed by SIGKILL (last logged step 2); the other ranks were "
        f"stopped. Go on from {folder}/checkpoint-2: the same command with "
        "--resume_from_checkpoint auto"
    )


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"dataset_name": None}, "--dataset_name: expected what to train on"),
        ({"max_steps": 0}, "--max_steps: expected 1 or more"),
        ({"learning_rate": 0}, "--learning_rate: expected more than 0"),
        ({"max_steps": -1, "num_train_epochs": 0}, "--num_train_epochs: expected more than 0"),
        ({"reward_funcs": "praise"}, "unknown reward function 'praise'"),
        ({"reward_funcs": "poise.nothing.reward"}, "cannot be imported"),
        ({"sensitivity": -1}, "sensitivity must be at least 0"),
        ({"model_name_or_path": "no model"}, "no existing folder"),
        ({"dataset_name": "science:alchemy"}, "alchemy"),
        ({"resume_from_checkpoint": "true"}, "cannot resume"),
        ({"use_peft": "false"}, "expected --use_peft true beside it"),
        ({"sensitivty": 1}, "did you mean --sensitivity?"),
        ({"num_processes": 0}, "--num_processes: expected at least 1, found 0"),
    ],
)
def test_a_users_mistake_is_one_line(
    flags: dict[str, Any], message: str, run: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(**flags) == 2
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("poise")]
    assert len(errors) == 1
    assert message in errors[0]


def test_a_reward_function_is_an_attribute_of_a_module(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not a module of the same name, and a module's own fault is told."""
    package = tmp_path / "rewards_of_a_test"
    package.mkdir()
    (package / "__init__.py").write_text("from .score import score\n")
    (package / "score.py").write_text("def score(completions, **columns): return []\n")
    (package / "broken.py").write_text("import nothing_here\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    assert find_reward("rewards_of_a_test.score")([]) == []
    with pytest.raises(ValueError, match="No module named 'nothing_here'"):
        find_reward("rewards_of_a_test.broken.score")


def test_a_run_of_old_names_goes_on_under_the_new_ones(
    run: Any, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = FLAGS["dataset_name"]
    assert run(dataset_name=None, dataset=data, count=None, questions=12) == 0
    warned = [line for line in capsys.readouterr().err.splitlines() if "old name" in line]
    assert warned == [
        "--dataset is --dataset_name now; its old name goes with the next release",
        "--questions is --count now; its old name goes with the next release",
    ]
    config = yaml.safe_load((folder / "config.yaml").read_text())
    script = config["script"]
    assert (script["dataset_name"], script["count"]) == (data, 12)
    # As 0.1 wrote it.
    olds = {"dataset_name": "dataset", "dataset_train_split": "split", "count": "questions"}
    olds["reward_funcs"] = "rewards"
    config["script"] = {olds.get(name, name): value for name, value in script.items()}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    assert run(resume_from_checkpoint="true", max_steps=3) == 0
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    assert run(resume_from_checkpoint="true", max_steps=3, count=13) == 2
    assert "other settings (questions: 12 -> 13)" in capsys.readouterr().err
