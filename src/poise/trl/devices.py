"""On which devices a model may lie: whole on one, as torch runs it uncompiled."""

from __future__ import annotations

from typing import Any

from accelerate.utils import is_compiled_module


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
