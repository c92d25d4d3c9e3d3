"""What studies do not take is refused before anything runs."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import pytest

from lab.studies import collapse, isomers, largest, science, told_isomers

from . import test_collapse, test_isomers, test_largest, test_science, test_told_isomers

CONFIGS: dict[ModuleType, dict[str, Any]] = {
    collapse: test_collapse.CONFIG,
    isomers: test_isomers.CONFIG,
    largest: test_largest.CONFIG,
    science: test_science.CONFIG,
    told_isomers: test_told_isomers.CONFIG,
}


@pytest.mark.parametrize(
    ("study", "setting", "message"),
    [
        (collapse, {"lab": "chess"}, "lab: expected one of sorting, cipher, found 'chess'"),
        (collapse, {"reward": "share"}, "reward: expected whole with lab sorting and trainer pgpo"),
        (collapse, {"reward": "share", "lab": "cipher"}, "reward: expected whole with lab cipher"),
        (collapse, {"control": "other"}, "control: expected one of mean_step, shuffled"),
        (collapse, {"steps": 0}, "steps: expected a whole number"),
        (collapse, {"steps": 4}, r"test_every: expected a divisor of steps \(4\), found 3"),
        (collapse, {"sensitivity": -1.0}, "sensitivity"),
        (collapse, {"sensitvity": 1.0}, "sensitvity"),
        (isomers, {"domains": 7}, "domains: expected at most 6"),
        (isomers, {"strength": 1.5}, "strength: expected a number"),
        (isomers, {"sequences": True}, "sequences: expected a whole number"),
        (isomers, {"sequences": 8}, "sequences: expected a multiple of the 3 domains, found 8"),
        (isomers, {"tau": -1.0}, "tau"),
        (isomers, {"taau": 1.0}, "taau"),
        (isomers, {"train_strength": 2.0}, "train_strength: expected a number"),
        (isomers, {"cue": "smell"}, "cue: expected one of place, spelling"),
        (isomers, {"control": "none"}, "control: expected one of"),
        (isomers, {"control": "random directions"}, "are of space 'direction'"),
        (largest, {"steps": 0}, "steps: expected a whole number"),
        (largest, {"test_every": 3}, "test_every: expected a divisor"),
        (largest, {"control": "all"}, "control: expected one of"),
        (largest, {"listed": 3}, r"listed: expected 4 \(a place for each domain\) to 26"),
        (science, {"domain": "history"}, "domain: expected one of biology"),
        (science, {"part": "train"}, "part: expected one of validation, test"),
        (science, {"steps": -1}, "steps: expected a whole number"),
        (science, {"learning_rate": None}, "learning_rate"),
        (science, {"learning_rate": -1.0}, "learning_rate: expected a number above 0, found -1.0"),
        (science, {"rollouts": 1}, "rollouts: expected at least 2 a question, found 1"),
        (science, {"samples": 0}, "samples: expected a whole number"),
        (science, {"temperature": 0.0}, "temperature 0 is greedy"),
        (science, {"sensitivty": 1.0}, "sensitivty"),
        (told_isomers, {"steps": 0}, "steps: expected a whole number"),
        (told_isomers, {"families": ["implicatoin"]}, "implicatoin"),
    ],
)
def test_settings_are_checked_before_anything_runs(
    study: ModuleType, setting: dict[str, Any], message: str
) -> None:
    study.check(CONFIGS[study])
    with pytest.raises(ValueError, match=message):
        study.check(CONFIGS[study] | setting)
