"""Checks of settings that several studies share."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable
from typing import Any

# What a run's settings leave out. Poise's defaults may move; a result line keeps its meaning.
PGPO: dict[str, Any] = {
    "multiplier": "information",
    "teacher_model_kind": "ema",
    "rho_max": 2.0,
    "rho_min": 1.0,
    "signal_estimator": "entropy",
    "signal_reference": "none",
    "signal_reference_steps": 10,
    "signal_reference_decay": 0.01,
    "signal_prior_reference": None,
    "scale_weight_decay": False,
    "warmup_steps": 0,
    "pass_rate_weight": False,
    "routing": False,
    "distance_share": 0.25,
    "teacher_from_student": True,
    "random_demonstration": True,
    "max_resamples": 0,
    "normalize_by_distilled": True,
}
IGA: dict[str, Any] = {
    "space": "weight",
    "tau": 1.0,
    "tau_schedule": "constant",
    "mask_scale": "snr",
    "mask_eps": 1e-6,
    "projection": "randomized",
    "projection_oversampling": 8,
    "update": "chain",
    "applied_to": "gradient",
}


def require_choice(config: dict[str, Any], name: str, choices: Iterable[Any], default: Any) -> None:
    """Refuse a setting that is none of its choices.

    Raises:
        ValueError: it is not.
    """
    choices = tuple(choices)
    if (found := config.get(name, default)) not in choices:
        raise ValueError(f"{name}: expected one of {', '.join(map(str, choices))}, found {found!r}")


def require_counts(config: dict[str, Any], names: Iterable[str]) -> None:
    """Refuse numbers of things that are no whole number of at least 1.

    Raises:
        ValueError: one is missing or something else.
    """
    for name in names:
        value = config.get(name)
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise ValueError(f"{name}: expected a whole number of at least 1, found {value!r}")


def require_test_at_the_end(config: dict[str, Any]) -> None:
    """Refuse a run whose last test would not be of the trained model.

    Raises:
        ValueError: `steps` is no multiple of `test_every`.
    """
    steps, every = config["steps"], config["test_every"]
    if steps % every:
        raise ValueError(f"test_every: expected a divisor of steps ({steps}), found {every}")


def require_arguments(config: dict[str, Any], make: Callable[[dict[str, Any], str], Any]) -> None:
    """Refuse what a trainer's configuration refuses, or its optimizer or rollouts later.

    Args:
        config: the settings of a run.
        make: makes the configuration of settings and output folder.

    Raises:
        ValueError: a value outside its range, or an argument that it does not have.
    """
    rate = config.get("learning_rate")
    if rate is not None and not (isinstance(rate, int | float) and rate > 0):
        raise ValueError(f"learning_rate: expected a number above 0, found {rate!r}")
    if config.get("rollouts", 2) < 2:
        raise ValueError(f"rollouts: expected at least 2 a question, found {config['rollouts']}")
    try:
        with tempfile.TemporaryDirectory() as folder:
            make(config, folder)
    except TypeError as error:  # an unknown argument
        raise ValueError(str(error)) from None


def rollout_arguments(config: dict[str, Any], folder: str) -> dict[str, Any]:
    """Arguments of a run of PGPO or GRPO: one step a batch of rollouts, logged, nothing saved."""
    return {
        "output_dir": folder,
        "seed": config["seed"],
        "max_steps": config["steps"],
        "per_device_train_batch_size": config["prompts"] * config["rollouts"],
        "num_generations": config["rollouts"],
        "gradient_checkpointing": False,
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
    }


def iga_config(config: dict[str, Any], own: Iterable[str], folder: str, **study: Any) -> Any:
    """`IGAConfig` of a run.

    Args:
        config: its settings; `algorithm` is the trainer's `method`.
        own: names of settings that are the study's, not the trainer's.
        folder: for output.
        study: what the study sets by itself.
    """
    from poise import IGAConfig

    algorithm = config.get("algorithm", "iga")
    left = set(own)
    return IGAConfig(
        **{
            "output_dir": folder,
            "method": algorithm,
            "max_steps": config["steps"],
            "domain_weights": "equal",
            "gradient_checkpointing": False,
            "save_strategy": "no",
            "report_to": "none",
            "disable_tqdm": True,
        }
        | study
        | (IGA if algorithm == "iga" else {})
        | {name: value for name, value in config.items() if name not in left}
    )
