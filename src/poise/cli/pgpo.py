"""`poise pgpo`: trains a model by PGPO on questions with verifiable answers."""

from __future__ import annotations

import importlib
import os
import sys
from dataclasses import dataclass
from typing import Any

from trl import ModelConfig, get_peft_config

from ..data.reasoning_gym import reasoning_gym_reward
from ..isomers.answers import isomer_reward
from ..models import resolve_model
from ..pgpo.config import PGPOConfig
from ..pgpo.trainer import PGPOTrainer
from ..rewards import multiple_choice_feedback_reward, multiple_choice_reward
from .arguments import CommandParser, option
from .training import TrainingParser, add_model_arguments, load_datasets, run_command

REWARDS = {
    "multiple_choice": multiple_choice_reward,
    "multiple_choice_feedback": multiple_choice_feedback_reward,
    "reasoning_gym": reasoning_gym_reward,
    "isomers": isomer_reward,
}


@dataclass
class PGPOScriptArguments:
    """What to train on, and how it is scored; the rest is `PGPOConfig`'s and `ModelConfig`'s."""

    dataset_name: str = option(
        "",
        "Questions, required: 'facts' (a few hundred, brought along), 'sciknoweval' (hub), a local "
        "folder or .jsonl file, 'reasoning_gym:TASK', or a hub data set.",
    )
    dataset_train_split: str = option("train", "Split of the data set.")
    dataset_test_split: str | None = option(
        None, "Split of evaluations, which --eval_strategy asks for; by default 'test'."
    )
    count: int | None = option(None, "How many questions; None takes the data set's own number.")
    style: str = option(
        "chat",
        "Form of prompts: 'chat', 'plain' (letters) or 'short' (answers by an option's text, for "
        "the smallest models).",
    )
    question_seed: int = option(0, "Seed of generated questions.")
    reference: bool = option(
        False,
        "Show the teacher the reference answers of SciKnowEval (generated questions bring theirs); "
        "for models that seldom succeed. Needs --include_environment_feedback true.",
    )
    reward_funcs: list[str] | None = option(
        None,
        "Reward functions: 'multiple_choice', 'multiple_choice_feedback' (also returns text for "
        "the teacher), 'reasoning_gym', 'isomers', or dotted import paths such as "
        "my_module.my_reward. By default 'reasoning_gym' for its tasks, else 'multiple_choice'.",
    )


def make_parser() -> CommandParser:
    """The parser of the command line and of `--config FILE.yaml`."""
    return TrainingParser(PGPOScriptArguments, PGPOConfig, prog="poise pgpo")


def main(argv: list[str]) -> int:
    """Run the command."""
    return run_command("pgpo", make_parser(), make_trainer, argv)


def make_trainer(
    script: PGPOScriptArguments, config: PGPOConfig, model: ModelConfig
) -> PGPOTrainer:
    """The trainer that the arguments describe."""
    rows = load_datasets(script, config, style=script.style, reference=script.reference or None)
    add_model_arguments(config, model)
    is_gym = script.dataset_name.startswith("reasoning_gym:")
    rewards = script.reward_funcs or ["reasoning_gym" if is_gym else "multiple_choice"]
    return PGPOTrainer(
        model=resolve_model(model.model_name_or_path),
        reward_funcs=[find_reward(name) for name in rewards],
        args=config,
        peft_config=get_peft_config(model),
        **rows,
    )


def find_reward(name: str) -> Any:
    """A reward function by name or dotted import path.

    Raises:
        ValueError: there is none.
    """
    if name in REWARDS:
        return REWARDS[name]
    module, _, attribute = name.rpartition(".")
    if not module:
        raise ValueError(
            f"unknown reward function {name!r}: use one of {', '.join(REWARDS)}, or a dotted "
            "import path"
        )
    sys.path.insert(0, os.getcwd())
    try:
        return getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"reward function {name!r} cannot be imported: {error}") from None


if __name__ == "__main__":
    from .main import main as poise

    sys.exit(poise(["pgpo", *sys.argv[1:]]))
