"""`poise iga`: fine-tunes a model by IGA on logical isomer sets."""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml
from trl import ModelConfig, get_peft_config

from ..iga.config import OLD_NAMES, IGAConfig
from ..iga.trainer import IGATrainer
from ..models import EMBEDDED_NAMES, resolve_model
from .arguments import CommandParser, option
from .training import TrainingParser, add_model_arguments, load_datasets, run_command

logger = logging.getLogger(__name__)

SETTING = files(__package__).joinpath("iga.yaml")
GENERATED = "isomers"
GENERATION = ("depths", "cue_strength")  # arguments that only generated sets have


@dataclass
class IGAScriptArguments:
    """What to train on; the rest is `IGAConfig`'s and `ModelConfig`'s."""

    dataset_name: str = option(
        "",
        "Isomer sets, required with a model of one's own: 'isomers' or 'isomers:ordering,rates' "
        "(generated), a local .jsonl file or folder, or a hub data set, with columns isomer_id, "
        "domain, prompt and completion.",
    )
    dataset_train_split: str = option("train", "Split of the data set.")
    dataset_test_split: str | None = option(
        None, "Split of evaluations, which --eval_strategy asks for; by default 'test'."
    )
    count: int | None = option(None, "How many isomer sets; None takes the data set's own number.")
    question_seed: int = option(0, "Seed of generated or drawn sets.")
    depths: list[int] | None = option(None, "Reasoning steps of generated sets.")
    cue_strength: float | None = option(
        None,
        "Probability with which a surface cue, another in each domain, points to the right answer "
        "of generated sets: a shortcut. None is no cue.",
    )


def make_parser(argv: Sequence[str] = ()) -> CommandParser:
    """The parser of a command line and of `--config FILE.yaml`.

    Without `--config`, the embedded model has a setting of its own, which flags change. What it
    says of its generated sets does not hold for other data.
    """
    parser = TrainingParser(IGAScriptArguments, IGAConfig, prog="poise iga")
    if {"-h", "--help"} & set(argv) or any(w.partition("=")[0] == "--config" for w in argv):
        return parser
    named, _ = parser.parse_known_args(parser.with_new_names(argv))
    if (named.model_name_or_path or "default") in EMBEDDED_NAMES:
        logger.info("The setting of the embedded model: %s, then what flags say.", SETTING)
        setting = yaml.safe_load(SETTING.read_text(encoding="utf-8"))
        if named.dataset_name and not _is_generated(named.dataset_name):
            setting = {k: v for k, v in setting.items() if k not in ("count", *GENERATION)}
        parser.set_defaults_with_config(**setting)
    return parser


def main(argv: list[str]) -> int:
    """Run the command."""
    parser = make_parser(argv)
    words = parser.with_new_names(argv, old_names(argv))
    return run_command("iga", parser, make_trainer, words)


def old_names(argv: Sequence[str]) -> dict[str, str]:
    """Old names of `IGAConfig` -> new ones. Beside a batch size, which counted isomer sets then,
    old names stay: `IGAConfig` refuses both."""
    words = " ".join(argv).replace("-", "_")
    for word, after in zip(argv, [*argv[1:], ""], strict=True):
        flag, _, file = word.partition("=")
        if flag == "--config" and Path(file or after).is_file():
            words += Path(file or after).read_text(encoding="utf-8")
    if "per_device_train_batch_size" in words:
        return {}
    return {name: f"iga_{name}" for name in OLD_NAMES}


def make_trainer(script: IGAScriptArguments, config: IGAConfig, model: ModelConfig) -> IGATrainer:
    """The trainer that the arguments describe.

    Raises:
        ValueError: settings of generated sets for others, besides `load_questions`' own.
    """
    options: dict[str, Any] = {name: getattr(script, name) for name in GENERATION}
    if _is_generated(script.dataset_name):
        options["domains"] = config.iga_domains
    elif given := [f"--{name}" for name, value in options.items() if value is not None]:
        raise ValueError(
            f"{' and '.join(given)}: expected generated sets ('{GENERATED}'), found the data set "
            f"{script.dataset_name!r}, which has its own; leave out what belongs to generated sets"
        )
    rows = load_datasets(script, config, **options)
    add_model_arguments(config, model)
    return IGATrainer(
        model=resolve_model(model.model_name_or_path),
        args=config,
        peft_config=get_peft_config(model),
        **rows,
    )


def _is_generated(dataset: str) -> bool:
    return dataset.partition(":")[0] == GENERATED


if __name__ == "__main__":
    from .main import main as poise

    sys.exit(poise(["iga", *sys.argv[1:]]))
