"""A real language model learns by LoRA to name the largest of four numbers, under a shortcut.

See `labs.largest`. Settings of a run: `model`, as `models.resolve_model` takes it, and
`model_init_kwargs`; `strength` of the cue (None for none), and `train_strength` of training alone
(an oracle: null); `sets` a step, all of them new, and `steps`; `test_sets` in each test,
`test_every` steps; `lora_rank`; `algorithm` (`IGAConfig`'s `method`: that name is the harness's
own); `control` as in `isomers`; and any other argument of `IGAConfig`.

Figures by test: accuracy among the four listed numbers, that of the worst domain, the Logical
Consistency Score where the answer is decided; `reliance` as in `isomers`.
"""

from __future__ import annotations

import tempfile
from typing import Any

from ..labs import largest
from ._controls import shuffle_domains, use_random_directions
from ._settings import (
    iga_config,
    require_arguments,
    require_counts,
    require_directions,
    require_test_at_the_end,
)

LOADS_MODEL = True
COUNTS = ("seed", "steps", "sets", "lora_rank", "test_sets", "test_every")
OWN = (
    *(name for name in COUNTS if name != "seed"),
    *("method", "algorithm", "model", "strength", "train_strength", "control"),
)
CONTROLS = (None, "shuffled domains", "random directions")


def check(config: dict[str, Any]) -> None:
    """Refuse what the study or the trainer does not take.

    Raises:
        ValueError: a setting is missing or outside its range.
    """
    require_counts(config, COUNTS)
    require_test_at_the_end(config)
    for name in ("strength", "train_strength"):
        value = config.get(name)
        if value is not None and not 0 <= value <= 1:
            raise ValueError(f"{name}: expected a number in [0, 1] or null, found {value!r}")
    if config.get("control") not in CONTROLS:
        expected = ", ".join(map(str, CONTROLS))
        raise ValueError(f"control: expected one of {expected}, found {config['control']!r}")
    require_directions(config)
    require_arguments(config, _arguments)


def run(config: dict[str, Any]) -> dict[str, Any]:
    """One run and its figures."""
    from datasets import Dataset
    from peft import LoraConfig

    from ...models import resolve_model
    from ...training import IGATrainer
    from ..labs.answers import AnswerCurve
    from ..labs.quiet import hide_bars, quieten

    hide_bars()
    seed, strength, rank = config["seed"], config.get("strength"), config["lora_rank"]
    trained = config.get("train_strength", strength)
    rows = largest.isomers(
        config["sets"] * config["steps"], seed, "train", largest.TRAINED, trained
    )
    if config.get("control") == "shuffled domains":
        rows = shuffle_domains(rows, seed)
    tests = largest.tests(config["test_sets"], seed, strength)
    curve = AnswerCurve(tests, config["test_every"], largest.OUT_OF_DISTRIBUTION)
    with tempfile.TemporaryDirectory() as folder:
        trainer = IGATrainer(
            model=resolve_model(config["model"]),
            args=_arguments(config, folder),
            train_dataset=Dataset.from_list(rows).remove_columns("options"),
            peft_config=LoraConfig(r=rank, lora_alpha=2 * rank, target_modules="all-linear"),
            callbacks=[curve],
        )
        quieten(trainer)
        if config.get("control") == "random directions":
            use_random_directions(trainer.engine, seed)
        trainer.train()
    logged = [line for line in trainer.state.log_history if "loss" in line]
    figures = curve.figures()
    figures["reliance"] = figures["in_distribution/accuracy"] - figures["reversed/accuracy"]
    return figures | {"train_loss": [line["loss"] for line in logged]}


def _arguments(config: dict[str, Any], folder: str) -> Any:
    return iga_config(
        config,
        OWN,
        folder,
        per_device_train_batch_size=config["sets"],
        bf16=False,
        logging_steps=config["test_every"],
    )
