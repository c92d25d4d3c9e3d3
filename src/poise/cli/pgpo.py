"""`poise pgpo`: trains a model by PGPO on questions with verifiable answers."""

from __future__ import annotations

import importlib
import os
import sys
from dataclasses import dataclass
from typing import Any

from trl import ModelConfig, get_peft_config

from ..data.load import load_questions
from ..data.reasoning_gym import reasoning_gym_reward
from ..isomers.answers import isomer_reward
from ..models import resolve_model
from ..pgpo.config import PGPOConfig
from ..pgpo.trainer import PGPOTrainer
from ..rewards import multiple_choice_feedback_reward, multiple_choice_reward
from . import launch
from .arguments import CommandParser, option
from .training import add_model_arguments, check_arguments, make_training_parser, run_training

REWARDS = {
    "multiple_choice": multiple_choice_reward,
    "multiple_choice_feedback": multiple_choice_feedback_reward,
    "reasoning_gym": reasoning_gym_reward,
    "isomers": isomer_reward,
}


@dataclass
class PGPOScriptArguments:
    """What to train on, and how it is scored; the rest is `PGPOConfig`'s and `ModelConfig`'s."""

    dataset: str = option(
        "",
        "Questions, required: 'facts' (a few hundred, brought along), 'sciknoweval' (hub), a local "
        "folder or .jsonl file, 'reasoning_gym:TASK', or a hub data set.",
    )
    split: str = option("train", "Split of the data set.")
    questions: int | None = option(
        None, "How many questions; None takes the data set's own number."
    )
    style: str = option(
        "chat",
        "Form of prompts: 'chat', 'plain' (letters), 'short' (answers by an option's text, for "
        "the smallest models) or 'bare' (the same without an example).",
    )
    question_seed: int = option(0, "Seed of generated questions.")
    reference: bool = option(
        False,
        "Show the teacher the reference answers of SciKnowEval (generated questions bring theirs); "
        "for models that seldom succeed. Needs --include_environment_feedback true.",
    )
    rewards: list[str] | None = option(
        None,
        "Reward functions: 'multiple_choice', 'multiple_choice_feedback' (also returns text for "
        "the teacher), 'reasoning_gym', or dotted import paths such as my_module.my_reward. By "
        "default 'reasoning_gym' for its tasks, else 'multiple_choice'.",
    )


def make_parser() -> CommandParser:
    """The parser of the command line and of `--config FILE.yaml`."""
    return make_training_parser(PGPOScriptArguments, PGPOConfig, prog="poise pgpo")


def main(argv: list[str]) -> int:
    """Runs the command; several processes go through accelerate's launcher."""
    parsed, launch_flags, own = launch.parse(make_parser(), argv)
    check_arguments(*parsed[:2])
    if launch.needs_launcher(launch_flags):
        return launch.launch("poise.cli.pgpo", launch_flags, own, is_on_cpu=parsed[1].use_cpu)
    train(*parsed)
    return 0


def train(script: PGPOScriptArguments, config: PGPOConfig, model: ModelConfig) -> PGPOTrainer:
    """Trains, and leaves adapter or model, metrics, configuration and card in the run folder."""
    return run_training(make_trainer, script, config, model)


def make_trainer(
    script: PGPOScriptArguments, config: PGPOConfig, model: ModelConfig
) -> PGPOTrainer:
    """The trainer that the arguments describe."""
    dataset = load_dataset(script)
    add_model_arguments(config, model)
    return PGPOTrainer(
        model=resolve_model(model.model_name_or_path),
        reward_funcs=[find_reward(name) for name in script.rewards or [_usual_reward(script)]],
        args=config,
        train_dataset=dataset,
        peft_config=get_peft_config(model),
    )


def load_dataset(script: PGPOScriptArguments) -> Any:
    """The questions to train on."""
    options = {
        "count": script.questions,
        "style": script.style,
        "seed": script.question_seed,
        "reference": script.reference or None,
    }
    return load_questions(
        script.dataset, script.split, **{k: v for k, v in options.items() if v is not None}
    )


def _usual_reward(script: PGPOScriptArguments) -> str:
    is_gym = script.dataset.startswith("reasoning_gym:")
    return "reasoning_gym" if is_gym else "multiple_choice"


def find_reward(name: str) -> Any:
    """A reward function by name or dotted import path.

    Raises:
        ValueError: there is none.
    """
    if name in REWARDS:
        return REWARDS[name]
    module, _, attribute = name.rpartition(".")
    if module:
        sys.path.insert(0, os.getcwd())
        try:
            return getattr(importlib.import_module(module), attribute)
        except (ImportError, AttributeError) as error:
            raise ValueError(f"reward function {name!r} cannot be imported: {error}") from None
    raise ValueError(
        f"unknown reward function {name!r}: use one of {', '.join(REWARDS)}, or a dotted import "
        "path"
    )


if __name__ == "__main__":  # under the launcher
    from .main import main as poise

    sys.exit(poise(["pgpo", *sys.argv[1:]]))
