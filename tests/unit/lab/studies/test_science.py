"""The study of science questions, a step of it on a model that knows nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from lab.studies import science

CONFIG: dict[str, Any] = {
    "method": "pgpo",
    "seed": 1,
    "domain": "physics",
    "part": "test",
    "style": "plain",
    "steps": 2,
    "prompts": 2,
    "rollouts": 2,
    "lora_rank": 2,
    "samples": 3,
    "new_tokens": 2,
    "learning_rate": 1e-3,
    "sensitivity": 0.5,
    "distillation_mode": "full_logits",
    "include_environment_feedback": True,
    "use_successful_as_teacher": False,
    "bf16": False,
}


@pytest.fixture(autouse=True)
def _questions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder := tmp_path / "physics").mkdir()
    for split, count in (("train", 40), ("test", 4)):
        rows = [_row(split, number) for number in range(count)]
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    monkeypatch.setenv(science.FOLDER, str(tmp_path))


def _row(split: str, number: int) -> dict[str, str]:
    prompt = f"{split} {number}: which one?\n\nA: {number}\nB: b\nC: c\nD: d"
    return {"id": f"{split}-{number}", "domain": "physics", "prompt": prompt, "answer": "A"}


def test_a_run_has_accuracy_and_the_course_of_training(tiny_model_path: str) -> None:
    config = CONFIG | {"model": tiny_model_path}
    figures = science.run(config)
    assert 0 <= figures["accuracy"] <= figures["answered"] <= 1
    assert len(figures["multipliers"]) == len(figures["rewards"]) == 2
    assert all(signal is not None for signal in figures["signals"])
    assert science.run(config) == figures


def test_no_steps_measure_the_model_as_it_is(tiny_model_path: str) -> None:
    figures = science.run(CONFIG | {"model": tiny_model_path, "steps": 0})
    assert set(figures) == {"accuracy", "answered"}


def test_what_settings_are_chosen_on_is_neither_trained_on_nor_the_test() -> None:
    trained, validation = science._questions(CONFIG | {"part": "validation"})
    again, test = science._questions(CONFIG)
    ids = [{row["id"] for row in part} for part in (trained, validation, test)]
    assert list(again) == list(trained) and len(validation) > 1
    assert len(set.union(*ids)) == 44 == sum(map(len, ids))


def test_questions_that_are_not_there_are_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    science.check_data(CONFIG)
    monkeypatch.setenv(science.FOLDER, str(tmp_path / "nowhere"))
    with pytest.raises(ValueError, match=r"POISE_SCIKNOWEVAL: expected the folder .*nowhere"):
        science.check_data(CONFIG)
    monkeypatch.delenv(science.FOLDER)
    monkeypatch.setattr("datasets.load_dataset", _no_hub)
    with pytest.raises(ValueError, match="or the hub at hand; found None: no network"):
        science.check_data(CONFIG)


def _no_hub(*_: Any, **__: Any) -> None:
    raise ConnectionError("no network")
