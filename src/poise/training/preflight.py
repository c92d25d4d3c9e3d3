"""Checks of everything that the user hands over, before anything expensive starts."""

from __future__ import annotations

import difflib
import itertools
import tempfile
from pathlib import Path
from typing import Any

from accelerate.utils import is_compiled_module
from transformers import AutoConfig
from trl.data_utils import is_conversational

from ..data.validation import check_dataset
from ..models import ModelError, resolve_model
from .pgpo_config import PGPOConfig

HINT = "privileged_context"


def check_before_loading(model: Any, args: PGPOConfig, train_dataset: Any) -> Any:
    """Checks that need no model.

    Returns:
        The model, or what its name stands for.

    Raises:
        TypeError: arguments of another trainer.
        ValueError: no data, rows that cannot be trained on, a path that is not a model.
        OSError: an output folder that cannot be written.
    """
    if not isinstance(args, PGPOConfig):
        raise TypeError(
            f"args must be a PGPOConfig, got {type(args).__name__}; PGPOConfig takes the same "
            "arguments and Poise's own"
        )
    if train_dataset is None:
        raise ValueError("train_dataset is required: pass a Dataset with a column 'prompt'")
    refuse_data_parallel(args, "PGPOTrainer")
    if not isinstance(model, str):
        refuse_spread_model(model)
        if args.tiled_loss:
            refuse_compiled_model(model)
    check_dataset(train_dataset)
    _check_hint_column(args, first_rows(train_dataset, 1))
    check_output_folder(Path(args.output_dir))
    return find_model(model, args) if isinstance(model, str) else model


def find_model(name: str, args: Any) -> str:
    """What a model's name stands for, once its configuration could be read; `args` are told to
    load it whole (`keep_whole`).

    Raises:
        ModelError: it cannot be read, or it is an encoder with a decoder.
    """
    keep_whole(args)
    path, init = resolve_model(name), args.model_init_kwargs
    try:
        config = AutoConfig.from_pretrained(
            path, trust_remote_code=args.trust_remote_code, revision=init.get("revision") or "main"
        )
    except (OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ModelError(
            f"model {name!r} cannot be loaded: {reason}; give a local model folder or a hub id"
        ) from error
    if config.is_encoder_decoder:
        raise ModelError(
            f"model {name!r} is an encoder with a decoder, expected a causal language model, whose "
            "answer goes on where the prompt ends"
        )
    return path


def keep_whole(args: Any) -> None:
    """Has TRL load models onto one device, unless the user gave a `device_map`: TRL's own default
    spreads a model over all GPUs in sight, or offloads a part of it."""
    args.model_init_kwargs = {"device_map": None} | (args.model_init_kwargs or {})


def refuse_data_parallel(args: Any, trainer: str) -> None:
    """Refuses several GPUs in one process.

    Raises:
        ValueError: there are.
    """
    if args.n_gpu > 1:
        raise ValueError(
            f"{trainer} cannot run under DataParallel (one process, {args.n_gpu} GPUs), which "
            "deals a batch's sequences to copies of the model; use DDP (accelerate launch, "
            "torchrun), or one GPU (CUDA_VISIBLE_DEVICES=0)"
        )


def refuse_spread_model(model: Any) -> None:
    """Refuses a model whose parts lie on several devices.

    Raises:
        ValueError: they do.
    """
    places = sorted(
        {str(place) for place in (getattr(model, "hf_device_map", None) or {}).values()}
    )
    if len(places) > 1:
        raise ValueError(
            f"the model is spread over {', '.join(places)}, expected one device, on which hidden "
            "states and losses are taken apart; load it without device_map, or with "
            "device_map={'': 0}"
        )


def refuse_compiled_model(model: Any) -> None:
    """Refuses a model that torch has compiled, whole or in part.

    Raises:
        ValueError: it has.
    """
    if any(is_compiled_module(m) or m._compiled_call_impl is not None for m in model.modules()):
        raise ValueError(
            "the model is compiled (torch.compile), but the tiled loss runs its backbone and its "
            "head one by one; give the model as it was loaded, or set tiled_loss=False"
        )


def _check_hint_column(args: PGPOConfig, rows: list[dict[str, Any]]) -> None:
    """Static feedback is optional, so a misspelt column would be left out without a word."""
    if args.include_environment_feedback and HINT not in rows[0]:
        near = difflib.get_close_matches(HINT, rows[0], n=1)
        if near:
            raise ValueError(
                f"the data set has no column {HINT!r}, from which the teacher takes its hint, but "
                f"{near[0]!r}; rename it"
            )


def check_output_folder(folder: Path) -> None:
    """Creates the folder and a file in it.

    Raises:
        OSError: it cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise OSError(
            f"output_dir {folder} cannot be written ({error.strerror}); choose another with "
            "output_dir"
        ) from None


def check_chat_template(rows: list[dict[str, Any]], processing_class: Any) -> None:
    """A conversational prompt needs a tokenizer that knows how to write one down.

    Raises:
        ValueError: it does not.
    """
    if is_conversational({"prompt": rows[0]["prompt"]}) and not processing_class.chat_template:
        raise ValueError(
            "the prompts are conversations (lists of messages), but the tokenizer has no chat "
            "template; use an instruction-tuned model, set tokenizer.chat_template, or make the "
            "prompts plain text"
        )


def first_rows(dataset: Any, count: int) -> list[dict[str, Any]]:
    """The first rows of a map-style or iterable dataset."""
    return list(itertools.islice(iter(dataset), count))
