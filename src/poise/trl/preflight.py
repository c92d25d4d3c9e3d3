"""Checks of what both trainers are handed, before anything expensive starts.

A model lies whole on one device, as torch runs it uncompiled. What is refused is a ValueError.
"""

from __future__ import annotations

import copy
import json
import tempfile
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import DistributedType, is_compiled_module
from peft import LoraConfig, inject_adapter_in_model
from torch import nn
from torch.distributed.tensor import DTensor
from torch.utils.data import IterableDataset
from transformers import AutoConfig, AutoModelForCausalLM, Trainer
from transformers.integrations import (
    INTEGRATION_TO_CALLBACK,
    get_available_reporting_integrations,
    is_deepspeed_zero3_enabled,
)
from transformers.pytorch_utils import Conv1D

from ..models import ModelError, resolve_model

# Of any evaluation of transformers'.
FIGURES = ("loss", "runtime", "samples_per_second", "steps_per_second")
_IN_FILES = ("accelerator_config", "deepspeed", "fsdp_config")


def find_model(name: str, args: Any) -> str:
    """What a model's name stands for; `args` are told to load it whole (`keep_whole`). Raises
    ModelError where it cannot be read, or is an encoder with a decoder."""
    keep_whole(args)
    path = resolve_model(name)
    try:
        config = _config(path, args)
    except (OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ModelError(
            f"model {name!r} cannot be loaded: {reason}; give a local model folder or a hub id"
        ) from error
    if config.is_encoder_decoder:
        raise ModelError(
            f"model {name!r} is an encoder with a decoder, expected a causal language model"
        )
    return path


def _config(path: str, args: Any) -> Any:
    revision = args.model_init_kwargs.get("revision") or "main"
    trust = args.trust_remote_code
    return AutoConfig.from_pretrained(path, trust_remote_code=trust, revision=revision)


def check_adapter(path: str, args: Any, peft_config: Any) -> None:
    """Puts a LoRA adapter onto the model without its weights, before they are loaded; raises
    ValueError where PEFT refuses it, as where it names no layer of the model."""
    if not isinstance(peft_config, LoraConfig) or is_deepspeed_zero3_enabled():
        return
    own = copy.deepcopy(peft_config)
    own.init_lora_weights = False
    # Whoever seeded the generator is to find it as it was.
    with torch.random.fork_rng([]), torch.device("meta"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            bare = AutoModelForCausalLM.from_config(
                _config(path, args), trust_remote_code=args.trust_remote_code
            )
        except Exception:  # any: a model's own code may need weights
            return
        linear = (n for n, m in bare.named_modules() if isinstance(m, (nn.Linear, Conv1D)))
        layers = sorted({name.rpartition(".")[2] for name in linear})
        try:
            inject_adapter_in_model(own, bare)
        except ValueError as error:
            reason = str(error).splitlines()[0]  # a layer's whole structure may follow
            raise ValueError(
                f"peft_config: expected an adapter that fits the model, found: {reason} "
                f"target_modules (--lora_target_modules) may name {', '.join(layers)}, or be "
                "'all-linear'"
            ) from None
        except Exception:  # any: what has no form without weights
            return


def check_installed(args: Any, optimizer: Any) -> None:
    """Refuses what transformers would find missing after the model was loaded: a tracker of
    `report_to`; by an ImportError the package of `optim`, unless an optimizer is handed over."""
    known = [*get_available_reporting_integrations(), "none"]
    for name in (name for name in args.report_to if name not in known):
        try:
            INTEGRATION_TO_CALLBACK[name]()
        except (KeyError, ImportError, RuntimeError) as error:
            reason = "no such tracker" if isinstance(error, KeyError) else error
            raise ValueError(
                f"report_to: expected one of those that are installed ({', '.join(known)}), found "
                f"{name!r}: {reason}; install it, or choose another"
            ) from None
    if optimizer is None:
        try:
            Trainer.get_optimizer_cls_and_kwargs(args)
        except ImportError as error:
            raise ImportError(f"optim={args.optim.value!r}: {error}") from None
        except (TypeError, ValueError):  # of those that need the model
            return


def check_best_metric(trainer: Any, own: Iterable[str]) -> None:
    """Refuses a `metric_for_best_model` that no evaluation has: the first would end the run.

    `own` are figures beside transformers' `FIGURES`. Names with a slash are not judged, nor is
    anything where the user's own code may add figures.
    """
    args, parts = trainer.args, trainer.eval_dataset
    name = args.metric_for_best_model or "/"
    code = {type(one).__module__ for one in (trainer, *trainer.callback_handler.callbacks)}
    is_ours = all(module.startswith(("poise.", "trl.", "transformers.")) for module in code)
    if "/" in name or args.eval_strategy == "no" or trainer.compute_metrics or not is_ours:
        return
    # The figures of one of several data sets have its name before theirs.
    before = [f"{part}_" for part in parts] if isinstance(parts, dict) else [""]
    known = [*own, *(part + figure for part in before for figure in FIGURES)]
    if name.removeprefix("eval_") not in known:
        raise ValueError(
            f"metric_for_best_model: expected {', '.join(map(repr, known))}, as an evaluation "
            f"calls its figures, found {name!r}"
        )


def check_json(args: Any) -> None:
    """Refuses an argument whose value is to be a mapping, on the command line in JSON or, of some,
    in a file, and is none."""
    for name in args._VALID_DICT_FIELDS:
        value, reason, may_be_file = getattr(args, name), "", name in _IN_FILES
        is_fine = value is None or isinstance(value, Mapping)
        if isinstance(value, str) and value.startswith("{"):
            try:
                json.loads(value)
                is_fine = True
            except json.JSONDecodeError as error:
                reason = f" ({error})"
        elif isinstance(value, str):  # DeepSpeed's own reader judges text that is no file
            is_fine = may_be_file and (name == "deepspeed" or Path(value).is_file())
        elif may_be_file:
            is_fine = not isinstance(value, list)
        if is_fine:
            continue
        file = ", or a file that holds one" if may_be_file else ""
        raise ValueError(
            f"{name}: expected a mapping in JSON, such as '{{\"name\": 1}}'{file}, found "
            f"{value!r}{reason}"
        )


def check_map_style(rows: Any, name: str) -> None:
    """Raises TypeError for a stream, or what cannot be iterated over: rollouts of a group share a
    prompt, which is drawn by its place in the data set."""
    is_indexed = hasattr(rows, "__len__") and hasattr(rows, "__getitem__")
    if is_indexed and not hasattr(rows, "__iter__"):  # a torch Dataset
        why = (
            "which cannot be iterated over; make one "
            "(Dataset.from_list([rows[i] for i in range(len(rows))]))"
        )
    elif isinstance(rows, IterableDataset) or not is_indexed:
        why = (
            "of which, as of a stream, no prompt can be drawn several times; load it whole, or as "
            "many rows as you need (Dataset.from_list(list(stream.take(1000))))"
        )
    else:
        return
    raise TypeError(f"{name} must be a datasets.Dataset, got {type(rows).__name__}, {why}")


def check_output_folder(folder: Path) -> None:
    """Creates the folder and a file in it; raises OSError where it cannot."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=folder):
            pass
    except OSError as error:
        reason = f"output_dir {folder} cannot be written ({error.strerror}); choose another"
        raise OSError(reason) from None


def keep_whole(args: Any) -> None:
    """Has TRL load models onto one device, unless the user gave a `device_map`: TRL's own default
    spreads a model over all GPUs in sight, or offloads a part of it."""
    args.model_init_kwargs = {"device_map": None} | (args.model_init_kwargs or {})


def refuse_data_parallel(args: Any, trainer: str) -> None:
    """Refuses several GPUs in one process, which deals a batch to copies of the model."""
    if args.n_gpu > 1:
        raise ValueError(
            f"{trainer} cannot run under DataParallel (one process, {args.n_gpu} GPUs); use DDP "
            "(accelerate launch, torchrun), or one GPU (CUDA_VISIBLE_DEVICES=0)"
        )


def refuse_spread_model(model: Any) -> None:
    """Refuses a model whose parts lie on several devices."""
    places = sorted(
        {str(place) for place in (getattr(model, "hf_device_map", None) or {}).values()}
    )
    if len(places) > 1:
        raise ValueError(
            f"the model is spread over {', '.join(places)}, expected one device; load it without "
            "device_map, or with device_map={'': 0}"
        )


def refuse_sharded_model(model: Any) -> None:
    """Refuses a model that is sharded before a trainer shards it."""
    if any(isinstance(param, DTensor) for param in model.parameters()):
        raise ValueError(
            "the model is sharded already (its parameters are DTensors), expected a whole one, "
            "which the trainer shards itself; load it anew, without a distributed_config"
        )


def refuse_other_shards(accelerator: Any, trainer: str) -> None:
    """Refuses what shards a model otherwise than FSDP2 does, or loads it on one rank alone."""
    plugin = getattr(accelerator.state, "fsdp_plugin", None)
    if accelerator.parallelism_config is not None:
        why = "with a parallelism_config (HSDP, other parallelism); leave it out for DDP or FSDP2"
    elif plugin is not None and plugin.fsdp_version != 2:
        why = "under FSDP1; use FSDP2: fsdp_config={'version': 2}, or accelerate's fsdp_version: 2"
    elif plugin is not None and plugin.cpu_ram_efficient_loading:
        why = "with cpu_ram_efficient_loading: one rank alone has the weights; set it to False"
    else:
        return
    raise ValueError(f"{trainer} cannot run {why}")


def refuse_quantised_shards(accelerator: Any, model: Any, args: Any) -> None:
    """Refuses under FSDP2 a base of 8 bits, whose shards lack the scales that lie beside them, and
    checkpoints of one of 4 bits that nobody could resume from."""
    if accelerator.distributed_type != DistributedType.FSDP:
        return
    if getattr(model, "is_loaded_in_8bit", False):
        raise ValueError("FSDP2 cannot shard a base of 8 bits; use load_in_4bit, or DDP")
    kind = accelerator.state.fsdp_plugin.state_dict_type.name
    is_resumed = args.save_strategy != "no" and not args.save_only_model
    if is_resumed and kind == "FULL_STATE_DICT" and getattr(model, "is_loaded_in_4bit", False):
        raise ValueError(
            "FSDP2 cannot read a checkpoint with a base of 4 bits back with state_dict_type "
            "FULL_STATE_DICT; set save_strategy='no' and write the adapter at the end "
            "(save_model), or SHARDED_STATE_DICT (fsdp_config's state_dict_type), by which a run "
            "resumes, but which writes no adapter"
        )


def refuse_idle_optimizer(optimizer: Any, model: Any) -> None:
    """Refuses an optimizer of which no parameter is trained, as one that was made before the
    adapter. None is that of the trainer."""
    if optimizer is None:
        return
    trained = {id(param) for param in model.parameters() if param.requires_grad}
    own = [param for group in optimizer.param_groups for param in group["params"]]
    if own and not any(id(param) in trained for param in own):
        raise ValueError(
            "optimizers: expected an optimizer of weights that are trained, found one of "
            f"{len(own)} tensors that are not; make the adapter first (get_peft_model, no "
            "peft_config), or leave the optimizer to the trainer (optim=...)"
        )


def refuse_compiled_model(model: Any) -> None:
    """Refuses a model that torch has compiled, whole or in part."""
    if any(is_compiled_module(m) or m._compiled_call_impl is not None for m in model.modules()):
        raise ValueError(
            "the model is compiled (torch.compile), but the tiled loss runs its backbone and its "
            "head one by one; give the model as it was loaded, or set tiled_loss=False"
        )
