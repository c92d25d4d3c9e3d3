"""What studies of isomers share: a run of `IGATrainer` under a cue, and its controls."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ._controls import shuffle_domains, use_random_directions

CONTROLS = (None, "shuffled domains", "random directions")


def check_cue(config: dict[str, Any]) -> None:
    """Refuse strengths and controls outside their range.

    Raises:
        ValueError: one is; or random directions have none to take the place of.
    """
    for name in ("strength", "train_strength"):
        value = config.get(name)
        if value is not None and not 0 <= value <= 1:
            raise ValueError(f"{name}: expected a number in [0, 1] or null, found {value!r}")
    control = config.get("control")
    if control not in CONTROLS:
        expected = ", ".join(map(str, CONTROLS))
        raise ValueError(f"control: expected one of {expected}, found {control!r}")
    if control == "random directions" and config.get("space") != "direction":
        raise ValueError(
            "control: 'random directions' are of space 'direction', found space "
            f"{config.get('space')!r}"
        )


def learn(
    config: dict[str, Any],
    model: str,
    rows: list[dict[str, Any]],
    curve: Any,
    make_arguments: Callable[[dict[str, Any], str], Any],
) -> dict[str, Any]:
    """Train by LoRA on all linear layers.

    Args:
        config: the run's settings.
        model: folder of a model.
        rows: isomer sets to train on.
        curve: an `AnswerCurve`, which measures along the way.
        make_arguments: makes `IGAConfig` of settings and output folder.

    Returns:
        The curve's figures; `reliance`, accuracy with the cue minus that with the cue reversed; and
        `train_loss`.
    """
    from poise.demo.learning import learn as train

    if config.get("control") == "shuffled domains":
        rows = shuffle_domains(rows, config["seed"])

    def prepare(trainer: Any) -> None:
        if config.get("control") == "random directions":
            use_random_directions(trainer.engine, config["seed"])

    def arguments(folder: str) -> Any:
        return make_arguments(config, folder)

    return train(model, rows, curve, arguments, config["lora_rank"], prepare)
