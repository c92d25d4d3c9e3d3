"""`poise eval` asks for generated isomers as the compared runs were trained on them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from poise.cli.eval import EvalArguments
from poise.cli.eval import Step, choose_dataset
from poise.evaluate.load import Target


def step(folder: Path, script: dict[str, Any], config: dict[str, Any]) -> Step:
    folder.mkdir()
    sections = {"script": {"dataset": "isomers", **script}, "config": config}
    (folder / "config.yaml").write_text(yaml.safe_dump(sections))
    return Step(folder.name, Target("m", None, "m", folder), ())


@pytest.fixture
def steps(tmp_path: Path) -> list[Step]:
    """Two runs with the defaults, left out or said in another order."""
    said = {"domains": ["law", "science", "medicine", "mathematics"]}
    return [step(tmp_path / "a", {}, {}), step(tmp_path / "b", {"depths": [2, 1]}, said)]


@pytest.mark.parametrize(
    ("name", "section", "value"),
    [
        ("depths", "script", [1]),
        ("domains", "config", ["mathematics", "sports"]),
        ("cue_strength", "script", 0.5),
    ],
)
def test_runs_that_were_trained_on_other_isomers_are_not_compared(
    steps: list[Step], tmp_path: Path, name: str, section: str, value: Any
) -> None:
    arguments = EvalArguments(dataset_name="isomers")
    assert name not in choose_dataset(arguments, steps)[1]
    parts: dict[str, dict[str, Any]] = {"script": {}, "config": {}}
    parts[section][name] = value
    steps.append(step(tmp_path / "c", **parts))
    with pytest.raises(ValueError, match=rf"different {name} \(default; .*compare them one by one"):
        choose_dataset(arguments, steps)
    own = EvalArguments(dataset_name="isomers", **{name: value})
    assert choose_dataset(own, steps)[1][name] == value


def test_runs_on_other_questions_have_no_say(steps: list[Step], tmp_path: Path) -> None:
    other = step(tmp_path / "c", {"dataset": "science"}, {"domains": ["physics"]})
    _, options = choose_dataset(EvalArguments(dataset_name="isomers"), [other, *steps])
    assert "domains" not in options
