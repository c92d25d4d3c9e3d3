"""Study 2: science questions, by SDPO and by PGPO, on a real language model.

SciKnowEval's four domains, each its own run, with LoRA and the whole of `PGPOTrainer`; avg@k on
questions that training never shows. The questions are read from the folder that the environment
variable `POISE_SCIKNOWEVAL` names, which holds `<domain>/<split>.jsonl`; without it from the hub.

Settings of a run: `domain`; `part`, "validation" (a fifth of the training split, which no run
trains on, to choose settings by) or "test"; `model`, as `models.resolve_model` takes it; `style`
of the prompts; `steps`, 0 for the model as it is; `prompts` and `rollouts` a step; `lora_rank`;
`samples`, `temperature`, `top_p` and `new_tokens` of the test; and any argument of `PGPOConfig`.

Figures: avg@k, the share of samples in which an answer was found, rewards and multipliers.
"""

from __future__ import annotations

import functools
import os
import tempfile
from collections.abc import Mapping
from typing import Any

from poise.splits import stable_fraction

from ._logs import pgpo_figures
from ._settings import (
    PGPO,
    require_arguments,
    require_choice,
    require_counts,
    rollout_arguments,
)

FOLDER = "POISE_SCIKNOWEVAL"
DOMAINS = ("biology", "chemistry", "materials", "physics")
PARTS = ("validation", "test")
TRAINED = 0.8  # of the training split
COUNTS = ("seed", "prompts", "rollouts", "lora_rank", "samples", "new_tokens")
OWN = ("method", "domain", "part", "model", "style", "steps", "temperature", "top_p", *COUNTS)


def check(config: dict[str, Any]) -> None:
    """Refuse what the study or the trainer does not take.

    Raises:
        ValueError: a setting of the study is missing or outside its range, or the trainer's
            configuration refuses one.
    """
    require_choice(config, "domain", DOMAINS, None)
    require_choice(config, "part", PARTS, None)
    if config.get("steps") != 0:
        require_counts(config, ("steps",))
        if config.get("learning_rate") is None:
            raise ValueError("learning_rate: expected a number, found none")
    require_counts(config, COUNTS)
    _sampling(config)
    require_arguments(config, arguments)


def check_data(config: Mapping[str, Any]) -> None:
    """Refuse to begin without the questions.

    Raises:
        ValueError: they cannot be read.
    """
    try:
        for split in ("train", "test"):
            _load(os.environ.get(FOLDER), config["domain"], split, config["style"])
    except OSError as error:  # the hub's errors of connection too
        raise ValueError(
            f"{FOLDER}: expected the folder with <domain>/train.jsonl and <domain>/test.jsonl, or "
            f"the hub at hand; found {os.environ.get(FOLDER)!r}: {error}"
        ) from None


def run(config: dict[str, Any]) -> dict[str, Any]:
    """One run and its figures."""
    questions, tests = _questions(config)
    return train_and_ask(config, arguments, questions, tests, _sampling(config))


def train_and_ask(
    config: dict[str, Any], make_arguments: Any, questions: Any, tests: list[Any], sampling: Any
) -> dict[str, Any]:
    """Train by PGPO on multiple-choice questions, then ask the tests.

    Args:
        config: the run's settings; with 0 `steps` the model is asked as it is.
        make_arguments: makes `PGPOConfig` of settings and output folder.
        questions: to train on.
        tests: to ask.
        sampling: how answers are drawn.

    Returns:
        Accuracy, the share of samples with an answer, multipliers, signals and rewards.
    """
    from poise import PGPOTrainer
    from poise.rewards import multiple_choice_reward

    from . import _language_model

    with tempfile.TemporaryDirectory() as folder:
        trainer = _language_model.make_trainer(
            PGPOTrainer,
            config,
            make_arguments(config, folder),
            questions,
            reward_funcs=multiple_choice_reward,
        )
        if config["steps"]:
            trainer.train()
    records = _language_model.ask(trainer, tests, sampling, config["seed"])
    logged = pgpo_figures(trainer.state.log_history) if config["steps"] else {}
    return _language_model.score(records) | logged


def _questions(config: dict[str, Any]) -> tuple[Any, list[dict[str, Any]]]:
    """Questions to train on, and those of the part that is asked for."""
    folder = os.environ.get(FOLDER)
    trained = _load(folder, config["domain"], "train", config["style"])
    kept = [i for i, row in enumerate(trained) if stable_fraction(str(row["prompt"])) < TRAINED]
    if config["part"] == "test":
        tests = _load(folder, config["domain"], "test", config["style"])
        return trained.select(kept), tests.to_list()
    others = sorted(set(range(len(trained))) - set(kept))
    return trained.select(kept), trained.select(others).to_list()


@functools.cache
def _load(folder: str | None, domain: str, split: str, style: str) -> Any:
    from poise.data.sciknoweval import load_sciknoweval

    return load_sciknoweval(folder, split, [domain], style, reference=True)


def _sampling(config: dict[str, Any]) -> Any:
    from poise.evaluate.ask import Sampling

    return Sampling(
        k=config["samples"],
        temperature=config.get("temperature", 0.6),
        top_p=config.get("top_p", 0.95),
        max_new_tokens=config["new_tokens"],
    )


def arguments(config: dict[str, Any], folder: str) -> Any:
    """`PGPOConfig` of a run."""
    import torch

    from poise import PGPOConfig

    own: dict[str, Any] = {name: value for name, value in config.items() if name not in OWN}
    return PGPOConfig(
        **{
            **rollout_arguments(config, folder),
            "max_steps": config["steps"] or 1,
            "max_completion_length": config["new_tokens"],
            "use_cpu": not torch.cuda.is_available(),
            "collapse_warning": False,
            "diagnostics_warning_interval": 0,
        }
        | PGPO
        | own
    )
