"""The study of told isomers, two steps of it on a model that knows nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lab.studies import told_isomers
from tests.tiny import save_tiny_model

CONFIG: dict[str, Any] = {
    "method": "iga",
    "seed": 1,
    "families": ["implication"],
    "depths": [1],
    "strength": 0.9,
    "steps": 2,
    "sets": 1,
    "lora_rank": 2,
    "test_sets": 2,
    "new_tokens": 4,
    "learning_rate": 1e-2,
    "bf16": False,
}
TESTS = ("in_distribution", "no_cue", "reversed", "unseen_domains", "deeper", "unseen_phrasings")


def test_a_run_has_the_figures_of_every_test(tmp_path: Path) -> None:
    config = CONFIG | {"model": save_tiny_model(tmp_path, max_position_embeddings=1024)}
    figures = told_isomers.run(config)
    for test in (*TESTS, "out_of_distribution"):
        assert 0 <= figures[f"{test}/worst_domain"] <= figures[f"{test}/accuracy"] <= 1
        assert 0 <= figures[f"{test}/disagreement"] <= 1
        assert 0 < figures[f"{test}/consistency"] < 2
    assert len(figures["train_loss"]) == 2
    assert told_isomers.run(config) == figures
    assert told_isomers.run(config | {"algorithm": "erm"}) != figures
