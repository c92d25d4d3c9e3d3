"""Engines that accelerate takes beside accelerators alone, in gloo ranks on the CPU.

Called in a rank (`tests.processes.run_ranks`), which ends with its test: nothing is put back.
"""

from __future__ import annotations

import os
import sys
from typing import Any

import accelerate.state
import torch
import torch.distributed.checkpoint  # with FSDP's, imported once for all ranks
from accelerate.utils import DistributedType
from torch import Tensor, nn
from torch.distributed.fsdp import CPUOffloadPolicy, FSDPModule
from torch.distributed.tensor import DTensor


def use_fsdp() -> None:
    """Has accelerate take an FSDP plugin on the CPU, where it would run DDP and say nothing."""
    state = accelerate.state.AcceleratorState
    initialise = state.__init__

    def initialise_with_fsdp(self: Any, *args: Any, fsdp_plugin: Any = None, **kwargs: Any) -> None:
        initialise(self, *args, fsdp_plugin=fsdp_plugin, **kwargs)
        if fsdp_plugin is not None and self.distributed_type == DistributedType.MULTI_CPU:
            if self._mixed_precision != "no":
                fsdp_plugin.set_mixed_precision(self._mixed_precision)
            if isinstance(fsdp_plugin.cpu_offload, CPUOffloadPolicy):
                # Memory is pinned for a device, and there is none.
                fsdp_plugin.cpu_offload = CPUOffloadPolicy(pin_memory=False)
            self.fsdp_plugin = fsdp_plugin
            self.distributed_type = DistributedType.FSDP
            shared = accelerate.state.PartialState._shared_state
            shared["distributed_type"] = self.distributed_type

    state.__init__ = initialise_with_fsdp


def fsdp_settings(**config: Any) -> dict[str, Any]:
    """A trainer's settings for FSDP2, each of the tiny model's layers a unit."""
    layers = {"transformer_layer_cls_to_wrap": ["LlamaDecoderLayer"]}
    return {"fsdp": True, "fsdp_config": {"version": 2, **layers, **config}}


def use_deepspeed() -> None:
    """Starts DeepSpeed in gloo ranks on the CPU, as accelerate does where it sees a GPU."""
    os.environ["DS_ACCELERATOR"] = "cpu"
    import deepspeed

    # An operation that is compiled at the start, under a lock that a killed process leaves behind.
    sys.modules["deepspeed.comm.torch"].build_shm_op = lambda: None
    deepspeed.init_distributed(dist_backend="gloo", auto_mpi_discovery=False, verbose=False)


def deepspeed_settings(stage: int, **config: Any) -> dict[str, Any]:
    """A trainer's settings for ZeRO; with them every run of its process is one of DeepSpeed."""
    zero = {"stage": stage} | config.pop("zero_optimization", {})
    own = {
        "train_micro_batch_size_per_gpu": "auto",
        "train_batch_size": "auto",
        "gradient_accumulation_steps": "auto",
        "gradient_clipping": "auto",
        "bf16": {"enabled": "auto"},
        "zero_optimization": zero,
    }
    return {"deepspeed": own | config}


def is_sharded(model: nn.Module) -> bool:
    """Whether FSDP2 has the model, of which a unit or two may be gathered."""
    shards = [isinstance(param, DTensor) for param in model.parameters() if param.requires_grad]
    return isinstance(model, FSDPModule) and any(shards)


@torch.no_grad()
def whole_weights(model: nn.Module) -> dict[str, Tensor]:
    """The parameters by name, gathered where they are shards: every rank calls this."""
    return {
        # Activation checkpointing of accelerate's wraps layers.
        name.replace("._checkpoint_wrapped_module", ""): (
            param.full_tensor() if isinstance(param, DTensor) else param
        ).clone(memory_format=torch.contiguous_format)
        for name, param in model.named_parameters()
    }
