"""The study of the largest number, four steps of it on a model that knows nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lab.studies import largest
from lab.tasks.largest import TESTS
from tests.tiny import save_tiny_model

CONFIG: dict[str, Any] = {
    "method": "iga",
    "seed": 1,
    "strength": 1.0,
    "listed": 4,
    "steps": 4,  # the first that reads two steps of running means: labels count there
    "sets": 1,
    "lora_rank": 2,
    "test_sets": 2,
    "test_every": 1,
    "learning_rate": 1e-2,
    "use_cpu": True,
    "space": "direction",
}


def test_a_run_has_the_figures_of_every_test(tmp_path: Path) -> None:
    config = CONFIG | {"model": save_tiny_model(tmp_path, max_position_embeddings=1024)}
    figures = largest.run(config)
    for test in (*TESTS, "out_of_distribution"):
        assert 0 <= figures[f"{test}/worst_domain"] <= figures[f"{test}/accuracy"] <= 1
        assert 0 < figures[f"{test}/score"] < 2
    assert len(figures["curve"]) == 4
    reliance = figures["in_distribution/accuracy"] - figures["reversed/accuracy"]
    assert figures["reliance"] == reliance
    assert largest.run(config) == figures
    losses = [figures["train_loss"]]
    for change in (
        {"train_strength": None},
        {"control": "shuffled domains"},
        {"control": "random directions"},
        {"space": "weight", "tau": 3.0},
    ):
        losses.append(largest.run(config | change)["train_loss"])
    assert len({tuple(loss) for loss in losses}) == len(losses)
