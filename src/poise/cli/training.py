"""What training commands share: one run to a folder, and resuming it."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import torch
from trl import ModelConfig, get_quantization_config

from ..machine import warn_if_slow, weights_dtype
from ..models import resolve_model
from ..trl.checkpoints import refuse_used_folder
from ..trl.logs import changed_settings, read_settings, write_run_description
from .arguments import CommandParser
from .progress import use_training_progress
from .quiet import hide_bars_of_files

Trainer = TypeVar("Trainer", bound=Any)
logger = logging.getLogger(__name__)


class TrainingParser(CommandParser):
    """What a resumed run leaves to the machine is what it was: the precision."""

    def parse_args_into_dataclasses(self, args: Any = None, *rest: Any, **options: Any) -> Any:
        """As transformers'."""
        named, _ = self.parse_known_args(args)
        if _as_bool(named.resume_from_checkpoint) and named.output_dir:
            before = read_settings(Path(named.output_dir))
            if named.bf16 is None and not named.fp16:
                self.set_defaults(bf16=before.get("config", {}).get("bf16"))
            if named.dtype == "auto":
                self.set_defaults(dtype=before.get("model", {}).get("dtype", "auto"))
        return super().parse_args_into_dataclasses(args, *rest, **options)


def make_training_parser(script: type, config: type, prog: str) -> CommandParser:
    """The parser of a training command and of its `--config FILE.yaml`.

    Choice: `--dtype auto` is the default, and is what the machine is quick in, not what a model's
    file holds.
    """
    parser = TrainingParser((script, config, ModelConfig), prog=prog)
    parser.set_defaults(dtype="auto")
    parser.epilog = (
        "Flags of `accelerate launch`, such as --num_processes 4, are taken too, and start the "
        "command under it."
    )
    return parser


def run_training(
    make_trainer: Callable[..., Trainer], script: Any, config: Any, model: ModelConfig
) -> Trainer:
    """Trains, and leaves adapter or model, metrics, configuration and card in the run folder.

    Args:
        make_trainer: from the three to a trainer.
        script: the command's own arguments, with `dataset`.
        config: the trainer's arguments.
        model: TRL's arguments of the model.
    """
    resume, folder = _as_bool(config.resume_from_checkpoint), Path(config.output_dir)
    name = model.model_name_or_path or "default"
    logger.info("Training %s on %s into %s", name, script.dataset, folder)
    hide_bars_of_files(resolve_model(name))
    trainer = make_trainer(script, config, model)
    sections = {"script": script, "config": config, "model": model}
    _check_run_folder(folder, resume, **sections)
    use_training_progress(trainer)
    write_run_description(folder, trainer, **sections)
    trainer.train(resume_from_checkpoint=resume)
    trainer.save_model(config.output_dir)
    trainer.create_model_card(model_name=folder.name, dataset_name=script.dataset)
    if trainer.is_world_process_zero():
        _correct_card(folder / "README.md", name, script.dataset, folder)
    return trainer


def check_arguments(script: Any, config: Any) -> None:
    """Refuse what would train on nothing, or do nothing, without a word.

    Raises:
        ValueError: no data set, no steps, no rate.
    """
    if not script.dataset:
        raise ValueError("--dataset: expected what to train on, found none; see --help")
    if config.max_steps == 0 or config.max_steps < -1:
        raise ValueError(
            f"--max_steps: expected 1 or more, or -1 for whole epochs, found {config.max_steps}"
        )
    for name in ("num_train_epochs", "learning_rate"):
        if not (value := getattr(config, name)) > 0:
            raise ValueError(f"--{name}: expected more than 0, found {value}")


def _correct_card(card: Path, model: str, dataset: str, folder: Path) -> None:
    """TRL's card calls a local model None, and takes every data set for one of the hub."""
    text = card.read_text(encoding="utf-8")
    for wrong, right in (
        ("[None](https://huggingface.co/None)", f"`{model}`"),
        ('model="None"', f'model="{folder}"'),
    ):
        text = text.replace(wrong, right)
    if "/" not in dataset or Path(dataset).exists():
        link = f"[{dataset}](https://huggingface.co/datasets/{dataset})"
        text = text.replace(link, f"`{dataset}`")
    card.write_text(text, encoding="utf-8")


def add_model_arguments(config: Any, model: ModelConfig) -> None:
    """Hands what the command line says about the model over to the trainer, which loads it."""
    if model.dtype in (None, "auto"):
        model.dtype = weights_dtype(config, is_frozen=model.use_peft)
    elif model.dtype != "float16":
        warn_if_slow(getattr(torch, model.dtype), config.device)
    config.model_init_kwargs = {
        "revision": model.model_revision,
        "attn_implementation": model.attn_implementation,
        "dtype": model.dtype,
        "quantization_config": get_quantization_config(model),
        **(config.model_init_kwargs or {}),
    }


def _check_run_folder(folder: Path, resume: str | bool | None, **arguments: Any) -> None:
    """A run folder holds one run: its metrics, checkpoints and settings belong together."""
    if not resume:
        refuse_used_folder(folder)
    if resume and (changed := changed_settings(folder, **arguments)):
        raise ValueError(
            f"{folder} holds a run with other settings ({'; '.join(changed)}); give the same, or "
            "choose another --output_dir"
        )


def _as_bool(resume: str | bool | None) -> str | bool | None:
    """`--resume_from_checkpoint True` arrives as text."""
    text = str(resume).lower()
    return {"true": True, "false": None, "none": None}.get(text, resume)
