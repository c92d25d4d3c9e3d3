"""A real language model learns by LoRA to name the largest of some numbers, under a shortcut.

See `lab.tasks.largest`. Settings of a run: `model`, as `models.resolve_model` takes it, and
`model_init_kwargs`; `strength` of the cue (None for none), and `train_strength` of training alone
(an oracle: null); numbers `listed` in a problem; `sets` a step, all of them new, and `steps`;
`test_sets` in each test, `test_every` steps; `lora_rank`; `algorithm` (`IGAConfig`'s `iga_method`:
that name is the harness's own); `control` as in `isomers`; any other argument of `IGAConfig`.

Figures by test: accuracy among the listed numbers, that of the worst domain, the Logical
Consistency Score where the answer is decided; `reliance` as in `isomers`.
"""

from __future__ import annotations

from typing import Any

from ..tasks import largest
from ._learning import check_cue, learn
from ._settings import iga_config, require_arguments, require_counts, require_test_at_the_end

COUNTS = ("seed", "listed", "steps", "sets", "lora_rank", "test_sets", "test_every")
OWN = (
    *(name for name in COUNTS if name != "seed"),
    *("method", "algorithm", "model", "strength", "train_strength", "control"),
)


def check(config: dict[str, Any]) -> None:
    """Refuse what the study or the trainer does not take.

    Raises:
        ValueError: a setting is missing or outside its range.
    """
    require_counts(config, COUNTS)
    require_test_at_the_end(config)
    check_cue(config)
    if not len(largest.TRAINED) <= config["listed"] <= len(largest.NUMBERS):
        raise ValueError(
            f"listed: expected {len(largest.TRAINED)} (a place for each domain) to "
            f"{len(largest.NUMBERS)} (numbers there are), found {config['listed']}"
        )
    require_arguments(config, _arguments)


def run(config: dict[str, Any]) -> dict[str, Any]:
    """One run and its figures."""
    from poise.demo.learning import AnswerCurve
    from poise.models import resolve_model

    seed, listed, strength = config["seed"], config["listed"], config.get("strength")
    trained = config.get("train_strength", strength)
    rows = largest.isomers(
        config["sets"] * config["steps"], seed, "train", largest.TRAINED, listed, trained
    )
    tests = largest.tests(config["test_sets"], seed, listed, strength)
    curve = AnswerCurve(tests, config["test_every"], largest.OUT_OF_DISTRIBUTION)
    rows = [{name: row[name] for name in row if name != "options"} for row in rows]
    return learn(config, resolve_model(config["model"]), rows, curve, _arguments)


def _arguments(config: dict[str, Any], folder: str) -> Any:
    return iga_config(
        config,
        OWN,
        folder,
        per_device_train_batch_size=config["sets"] * len(largest.TRAINED),
        bf16=False,
        logging_steps=config["test_every"],
    )
