"""What training commands share: one run to a folder, resuming it, and its progress bar."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import torch
from transformers import ProgressCallback
from trl import ModelConfig, get_quantization_config

from ..data.load import load_questions
from ..models import expanded, resolve_model
from ..precision import warn_if_slow, weights_dtype
from ..trl.logs import METRICS, changed_settings, last_step, read_settings, write_run_description
from ..trl.manifest import AUTO, is_to_begin, latest, refuse_used_folder
from . import launch
from .arguments import OLD_NAMES, CommandParser
from .eval_questions import generated_count
from .quiet import hide_bars_of_files

logger = logging.getLogger(__name__)

# What the progress bar shows -> the log's key.
_SHOWN = {
    "reward": "self_distillation/reward_mean",
    "signal": "pgpo/information_signal",
    "step x": "pgpo/multiplier",
    "entropy": "pgpo/student_entropy",
    "accuracy": "mean_token_accuracy",
    "agreement": "iga/agreement",
    "mask": "iga/mask_mean",
}


class TrainingParser(CommandParser):
    """The parser of a training command and of its `--config FILE.yaml`.

    A resumed run keeps the precision that the machine chose when it began. Choice: `--dtype auto`
    is the default, and is what the machine is quick in, not what a model's file holds.
    """

    def __init__(self, script: type, config: type, prog: str) -> None:
        super().__init__((script, config, ModelConfig), prog=prog)
        self.set_defaults(dtype="auto")
        self.epilog = (
            "Flags of `accelerate launch`, such as --num_processes 4, start the command under it."
        )

    def parse_args_into_dataclasses(self, args: Any = None, *rest: Any, **options: Any) -> Any:
        """As transformers'."""
        named, _ = self.parse_known_args(args)
        folder = Path(named.output_dir or "")
        if named.output_dir and _as_resume(named.resume_from_checkpoint, folder):
            before = read_settings(folder)
            if named.bf16 is None and not named.fp16:
                self.set_defaults(bf16=before.get("config", {}).get("bf16"))
            if named.dtype == "auto":
                self.set_defaults(dtype=before.get("model", {}).get("dtype", "auto"))
        return super().parse_args_into_dataclasses(args, *rest, **options)


def run_command(
    command: str, parser: CommandParser, make_trainer: Callable[..., Any], argv: list[str]
) -> int:
    """Runs a training command, whose `make_trainer` makes a trainer of script, config and model
    arguments; several processes go through accelerate's launcher."""
    argv = parser.with_new_names(argv)
    (script, config, model), launch_flags = launch.parse(parser, argv)
    check_arguments(script, config)
    if launch.needs_launcher(launch_flags):
        try:
            return launch.launch(
                "poise.cli.main", launch_flags, [command, *argv], is_on_cpu=config.use_cpu
            )
        except launch.RankFailedError as error:
            folder, flag = Path(config.output_dir), f"--resume_from_checkpoint {AUTO}"
            how = f"No checkpoint was written yet: run the same command again ({flag} always may)"
            if checkpoint := latest(folder):
                how = f"Go on from {checkpoint}: the same command with {flag}"
            raise launch.RankFailedError(
                f"{error} (last logged step {last_step(folder / METRICS)}); the other ranks were "
                f"stopped. {how}"
            ) from None
    run_training(make_trainer, script, config, model)
    return 0


def check_arguments(script: Any, config: Any) -> None:
    """Refuse what would train on nothing, or do nothing, without a word: a ValueError."""
    if not script.dataset_name:
        raise ValueError("--dataset_name: expected what to train on, found none; see --help")
    if config.max_steps == 0 or config.max_steps < -1:
        raise ValueError(
            f"--max_steps: expected 1 or more, or -1 for whole epochs, found {config.max_steps}"
        )
    for name in ("num_train_epochs", "learning_rate"):
        if not (value := getattr(config, name)) > 0:
            raise ValueError(f"--{name}: expected more than 0, found {value}")


def load_datasets(script: Any, config: Any, **options: Any) -> dict[str, Any]:
    """The trainer's rows: to train on and, where the run evaluates, of the test split as many as
    `poise eval` has. Options that are None are `load_questions`' own defaults.

    Raises:
        ValueError: what `load_questions` refuses; rows to evaluate on that are not there.
    """
    name, options = script.dataset_name, options | {"seed": script.question_seed}

    def load(split: str, count: int | None) -> Any:
        given = {k: v for k, v in (options | {"count": count}).items() if v is not None}
        return load_questions(name, split, **given)

    rows = {"train_dataset": load(script.dataset_train_split, script.count)}
    if config.eval_strategy == "no" and not config.eval_on_start:
        return rows
    split = script.dataset_test_split or "test"
    try:
        if expanded(name).is_file():
            raise ValueError(
                f"expected a data set with a split {split!r}, found the file {name}, which is "
                "trained on whole; give a folder with train.jsonl and test.jsonl"
            )
        return rows | {"eval_dataset": load(split, generated_count(name))}
    except (ValueError, FileNotFoundError) as error:
        raise ValueError(
            "--dataset_test_split, of the evaluations that --eval_strategy or --eval_on_start asks "
            f"for: {error}"
        ) from error


def run_training(
    make_trainer: Callable[..., Any], script: Any, config: Any, model: ModelConfig
) -> None:
    """Trains, and leaves adapter or model, metrics, configuration and card in the run folder."""
    folder = Path(config.output_dir)
    resume = _as_resume(config.resume_from_checkpoint, folder)
    name, dataset = model.model_name_or_path or "default", script.dataset_name
    logger.info("Training %s on %s into %s", name, dataset, folder)
    hide_bars_of_files(resolve_model(name))
    trainer = make_trainer(script, config, model)
    if resume:
        _check_settings(folder, script, config=config, model=model)
    else:
        refuse_used_folder(folder, of_command=True)
    if trainer.pop_callback(ProgressCallback) is not None:
        trainer.add_callback(TrainingProgress())
    write_run_description(folder, trainer, script=script, config=config, model=model)
    trainer.train(resume_from_checkpoint=resume)
    trainer.save_model(config.output_dir)
    trainer.create_model_card(model_name=folder.name, dataset_name=dataset)
    if trainer.is_world_process_zero():
        _correct_card(folder / "README.md", name, dataset)


def add_model_arguments(config: Any, model: ModelConfig) -> None:
    """Hands what the command line says about the model over to the trainer, which loads it.

    Raises:
        ValueError: arguments of an adapter, and none is asked for.
    """
    lora = (field for field in fields(ModelConfig) if field.name.startswith("lora_"))
    idle = [f.name for f in lora if f.default != getattr(model, f.name)]
    if idle and not model.use_peft:
        raise ValueError(
            f"--{idle[0]} says how an adapter is made, expected --use_peft true beside it, found "
            "full training; set it, or leave the argument out"
        )
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


class TrainingProgress(ProgressCallback):  # type: ignore[misc]
    """transformers' bar; the only change is that logs become its postfix instead of lines."""

    def on_log(
        self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **kwargs: Any
    ) -> None:
        if self.training_bar is None or logs is None:
            return
        figures = {name: logs[key] for name, key in _SHOWN.items() if logs.get(key) is not None}
        if figures:
            self.training_bar.set_postfix({name: f"{value:.3g}" for name, value in figures.items()})


def _check_settings(folder: Path, script: Any, **arguments: Any) -> None:
    """A run folder holds one run; one of 0.1 has old names of arguments."""
    before = read_settings(folder)
    if before.get("config", {}).get("space") is not None:
        raise ValueError(
            f"{folder} holds a run of an earlier Poise, whose batch size counted isomer sets; go "
            "on with it there, or choose another --output_dir"
        )
    written = before.get("script", {})
    names = {new: old for old, new in OLD_NAMES.items() if old in written}
    arguments["script"] = {names.get(name, name): value for name, value in asdict(script).items()}
    if changed := changed_settings(folder, **arguments):
        raise ValueError(
            f"{folder} holds a run with other settings ({'; '.join(changed)}); give the same, or "
            "choose another --output_dir"
        )


def _correct_card(card: Path, model: str, dataset: str) -> None:
    """TRL's card calls a local model None, and takes every data set for one of the hub."""
    text = card.read_text(encoding="utf-8")
    text = text.replace("[None](https://huggingface.co/None)", f"`{model}`")
    text = text.replace('model="None"', f'model="{card.parent}"')
    if "/" not in dataset or Path(dataset).exists():
        link = f"[{dataset}](https://huggingface.co/datasets/{dataset})"
        text = text.replace(link, f"`{dataset}`")
    card.write_text(text, encoding="utf-8")


def _as_resume(resume: str | bool | None, folder: Path) -> str | bool | None:
    """`--resume_from_checkpoint True` arrives as text; "auto" is None for a run that begins."""
    text = str(resume).lower()
    if text == AUTO:
        return None if is_to_begin(folder) else AUTO
    return {"true": True, "false": None, "none": None}.get(text, resume)
