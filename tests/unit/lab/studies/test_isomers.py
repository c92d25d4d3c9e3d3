"""The study of isomers, a few steps of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lab.studies import isomers
from lab.studies._learning import CONTROLS, shuffle_domains
from poise.demo import ranking

CONFIG: dict[str, Any] = {
    "method": "iga",
    "seed": 1,
    "domains": 3,
    "strength": 0.9,
    "steps": 4,
    "sequences": 6,
    "train_sequences": 24,
    "test_sets": 6,
    "test_every": 2,
    "lora_rank": 2,
    "learning_rate": 1e-2,
}


@pytest.fixture(autouse=True)
def _a_model_of_few_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POISE_CACHE", str(tmp_path))
    for name, size in ranking.SIZES.items():
        monkeypatch.setitem(ranking.SIZES, name, replace(size, steps=20))
    monkeypatch.setattr(ranking, "ROWS", 32)


def test_a_run_has_the_figures_of_every_test() -> None:
    figures = isomers.run(CONFIG)
    for test in (*ranking.TESTS, "out_of_distribution"):
        for name in ("accuracy", "worst_domain", "score"):
            assert 0 <= figures[f"{test}/{name}"] <= 2
        assert figures[f"{test}/worst_domain"] <= figures[f"{test}/accuracy"]
    mean = sum(figures[f"{test}/accuracy"] for test in ranking.OUT_OF_DISTRIBUTION) / 4
    assert figures["out_of_distribution/accuracy"] == pytest.approx(mean)
    assert [point["step"] for point in figures["curve"]] == [2, 4]
    assert (
        figures["out_of_distribution/accuracy at 2"]
        == (figures["curve"][0]["out_of_distribution/accuracy"])
    )
    assert isomers.run(CONFIG) == figures


def test_another_algorithm_learns_something_else() -> None:
    plain = isomers.run(CONFIG | {"algorithm": "erm"})
    assert plain["train_loss"] and plain["curve"] != isomers.run(CONFIG)["curve"]


def test_an_oracle_is_tested_with_a_cue_that_it_never_saw() -> None:
    figures = isomers.run(CONFIG | {"algorithm": "erm", "train_strength": None})
    plain = isomers.run(CONFIG | {"algorithm": "erm"})
    assert figures["train_loss"] != plain["train_loss"]
    for found in (figures, plain):
        reliance = found["in_distribution/accuracy"] - found["reversed/accuracy"]
        assert found["reliance"] == reliance


def test_controls_take_other_steps_on_the_same_data() -> None:
    losses = [
        isomers.run(CONFIG | {"space": "direction", "control": control})["train_loss"]
        for control in CONTROLS
    ]
    assert losses[0] != losses[1] != losses[2] != losses[0]


def test_shuffled_domains_keep_each_set_whole() -> None:
    rows = ranking.isomers(20, 1, "train", ranking.DOMAINS[:4], 1.0)
    shuffled = shuffle_domains(rows, 1)
    assert [row["prompt"] for row in shuffled] == [row["prompt"] for row in rows]
    labels = [row["domain"] for row in shuffled]
    assert labels != [row["domain"] for row in rows]
    assert all(sorted(labels[i : i + 4]) == ["a", "b", "c", "d"] for i in range(0, 80, 4))
