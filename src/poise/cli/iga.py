"""`poise iga`: fine-tunes a model by IGA on logical isomer sets."""

from __future__ import annotations

import logging
import sys
import warnings
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from trl import ModelConfig, get_peft_config

from ..data.load import load_questions
from ..iga.config import OLD_NAMES, IGAConfig
from ..iga.trainer import IGATrainer
from ..models import EMBEDDED_NAMES, resolve_model
from . import launch
from .arguments import CommandParser, option
from .training import add_model_arguments, check_arguments, make_training_parser, run_training

logger = logging.getLogger(__name__)

SETTING = str(files(__package__).joinpath("iga.yaml"))
GENERATED = "isomers"
GENERATION = ("depths", "cue_strength")  # arguments that only generated sets have


@dataclass
class IGAScriptArguments:
    """What to train on; the rest is `IGAConfig`'s and `ModelConfig`'s."""

    dataset: str = option(
        "",
        "Isomer sets, required with a model of one's own: 'isomers' or 'isomers:ordering,rates' "
        "(generated), a local .jsonl file or folder, or a hub data set, with columns isomer_id, "
        "domain, prompt and completion.",
    )
    split: str = option("train", "Split of the data set.")
    count: int | None = option(None, "How many isomer sets; None takes the data set's own number.")
    question_seed: int = option(0, "Seed of generated or drawn sets.")
    depths: list[int] | None = option(None, "Reasoning steps of generated sets.")
    cue_strength: float | None = option(
        None,
        "Probability with which a surface cue, another in each domain, points to the right answer "
        "of generated sets: a shortcut. None is no cue.",
    )


def make_parser() -> CommandParser:
    """The parser of the command line and of `--config FILE.yaml`."""
    return make_training_parser(IGAScriptArguments, IGAConfig, prog="poise iga")


def main(argv: list[str]) -> int:
    """Runs the command; several processes go through accelerate's launcher.

    Without `--config`, the embedded model has a setting of its own, which flags change.
    """
    words = with_setting(with_new_names(argv))
    parsed, launch_flags, own = launch.parse(make_parser(), words)
    check_arguments(*parsed[:2])
    if launch.needs_launcher(launch_flags):
        return launch.launch("poise.cli.iga", launch_flags, own, is_on_cpu=parsed[1].use_cpu)
    drop_embedded_sets(parsed[0], words)
    train(*parsed)
    return 0


def with_setting(argv: list[str]) -> list[str]:
    """The command line with the embedded model's setting, unless it names one or another model."""
    if _value(argv, "config") is not None:
        return argv
    if (_value(argv, "model_name_or_path") or "default") not in EMBEDDED_NAMES:
        return argv
    logger.info("The setting of the embedded model: %s, then what flags say.", SETTING)
    return ["--config", SETTING, *argv]


def with_new_names(argv: list[str]) -> list[str]:
    """The command line with the arguments' new names, where it has old ones.

    Beside a batch size, which counted isomer sets then, they stay: `IGAConfig` refuses both.
    """
    if _value(argv, "per_device_train_batch_size") is not None:
        return argv
    words = []
    for word in argv:
        flag, sign, value = word.partition("=")
        old = flag[2:].replace("-", "_")
        if flag.startswith("--") and old in OLD_NAMES:
            warnings.warn(
                f"--{old} is --iga_{old} now; its old name goes with the next release",
                FutureWarning,
                stacklevel=2,
            )
            word = f"--iga_{old}{sign}{value}"
        words.append(word)
    return words


def _value(argv: list[str], name: str) -> str | None:
    """What a flag says last, "" for nothing; None without it."""
    found = None
    for word, after in zip(argv, [*argv, ""][1:], strict=True):
        flag, sign, value = word.partition("=")
        if flag.startswith("--") and flag[2:].replace("-", "_") == name:
            found = value if sign else after
    return found


def drop_embedded_sets(script: IGAScriptArguments, words: list[str]) -> None:
    """What the embedded setting says of its generated sets is not said of other data."""
    if SETTING not in words or _is_generated(script.dataset):
        return
    asked_for = {word.partition("=")[0].lstrip("-").replace("-", "_") for word in words}
    for name in ("count", *GENERATION):
        if name not in asked_for:
            setattr(script, name, None)


def _is_generated(dataset: str) -> bool:
    return dataset.partition(":")[0] == GENERATED


def train(script: IGAScriptArguments, config: IGAConfig, model: ModelConfig) -> IGATrainer:
    """Trains, and leaves adapter or model, metrics, configuration and card in the run folder."""
    return run_training(make_trainer, script, config, model)


def make_trainer(script: IGAScriptArguments, config: IGAConfig, model: ModelConfig) -> IGATrainer:
    """The trainer that the arguments describe."""
    dataset = load_dataset(script, config)
    add_model_arguments(config, model)
    return IGATrainer(
        model=resolve_model(model.model_name_or_path),
        args=config,
        train_dataset=dataset,
        peft_config=get_peft_config(model),
    )


def load_dataset(script: IGAScriptArguments, config: IGAConfig) -> Any:
    """The isomer sets to train on, a row per problem.

    Raises:
        ValueError: settings of generated sets for others, besides `load_questions`' own.
    """
    options: dict[str, Any] = {"count": script.count, "seed": script.question_seed}
    generation = {name: getattr(script, name) for name in GENERATION}
    if _is_generated(script.dataset):
        options |= generation | {"domains": config.iga_domains}
    elif given := [f"--{name}" for name, value in generation.items() if value is not None]:
        raise ValueError(
            f"{' and '.join(given)}: expected generated sets ('{GENERATED}'), found the data set "
            f"{script.dataset!r}, which has its own; leave out what belongs to generated sets"
        )
    return load_questions(
        script.dataset, script.split, **{k: v for k, v in options.items() if v is not None}
    )


if __name__ == "__main__":  # under the launcher
    from .main import main as poise

    sys.exit(poise(["iga", *sys.argv[1:]]))
