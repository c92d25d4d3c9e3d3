"""Controls: steps weighed by their learning rates."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from transformers import TrainingArguments

from lab.studies._controls import rates, scheduled_mean, scheduled_shuffle


def test_rates_are_those_of_the_trainer_s_schedule(tmp_path: Path) -> None:
    args = TrainingArguments(
        str(tmp_path), max_steps=5, lr_scheduler_type="constant_with_warmup", warmup_steps=2
    )
    assert rates(args) == [0.0, 0.5, 1.0, 1.0, 1.0]
    args = TrainingArguments(str(tmp_path), max_steps=4, lr_scheduler_type="linear")
    assert rates(args) == [1.0, 0.75, 0.5, 0.25]


def test_a_shuffle_keeps_what_each_rate_had() -> None:
    multipliers, steps = [float(i) for i in range(40)], [0.0, 0.5, 1.0, 0.5] + [1.0] * 36
    shuffled = scheduled_shuffle(multipliers, steps, random.Random(3))
    assert shuffled != multipliers and shuffled[0] == multipliers[0]
    assert {shuffled[1], shuffled[3]} == {1.0, 3.0}
    assert sorted(shuffled) == multipliers
    assert scheduled_mean(shuffled, steps) == pytest.approx(scheduled_mean(multipliers, steps))
