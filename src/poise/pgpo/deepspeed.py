"""DeepSpeed, whose engine clips and steps inside the backward of the last micro-batch.

What PGPO does between backward and step it does before: the step's mean is a factor of the loss,
and whether the step counts is read off the loss.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..trl.contract import SDPOTrainer
from .distillation import loss_terms
from .engine_step_scale import EngineStepScale


class DeepSpeedMixin(SDPOTrainer):  # type: ignore[misc]
    """Does before the engine's step what PGPO does between backward and step."""

    _mean_factor = 1.0

    def train(self, *args: Any, **kwargs: Any) -> Any:
        """As it is, once.

        Raises:
            ValueError: under DeepSpeed, for the second time: transformers would make a new
                optimizer and a new schedule, and the engine would go on with the old ones.
        """
        if self.is_deepspeed_enabled and self.deepspeed is not None:
            raise ValueError(
                "this trainer's DeepSpeed engine is made already, and goes on with the optimizer "
                "and the schedule that it has; make another trainer (in a process of its own)"
            )
        return super().train(*args, **kwargs)

    def create_scheduler(self, *args: Any, **kwargs: Any) -> Any:
        """Transformers'; it is the first thing done with the optimizer that DeepSpeed has made."""
        scheduler = super().create_scheduler(*args, **kwargs)
        wrapper = self.is_deepspeed_enabled and self.accelerator.deepspeed_engine_wrapped
        if wrapper and self.step_scale is None:
            self._make_step_scale(EngineStepScale, wrapper.engine)
        return scheduler

    def _before_backward(self, loss: Tensor, is_first: bool) -> None:
        """Takes a micro-batch's loss, whose value stays as it is: it is logged."""
        if is_first:
            self._mean_factor = self._coming_mean_factor()
        if self._mean_factor != 1.0:
            factor = self._mean_factor
            loss.register_hook(lambda gradient: gradient * factor)  # type: ignore[no-untyped-call]
        if not self.accelerator.sync_gradients:
            return
        if (found := self._sum_up_step()) != self._mean_factor:
            raise RuntimeError(
                f"the step's gradients were to be multiplied by {found}, and were by "
                f"{self._mean_factor}: expected the masks of the rollouts as they were collected; "
                "set normalize_by_distilled=False where a subclass changes them"
            )
        if self._is_empty() or (self.args.skip_nonfinite_steps and not self._is_step_finite):
            self.step_scale.skip()

    def _coming_mean_factor(self) -> float:
        """`_sum_up_step`'s factor, from the rollouts of the whole step."""
        first = self._step % self.args.steps_per_generation
        batches = self._buffered_inputs[first : first + self.args.gradient_accumulation_steps]
        masks = [loss_terms(batch, self.args)["loss_mask"] for batch in batches]
        own = torch.tensor(
            [sum(int((m != 0).any(-1).sum()) for m in masks), sum(map(len, masks))],
            device=self.accelerator.device,
        )
        counted, samples = self.accelerator.reduce(own, reduction="sum").tolist()
        return self._factor_of_mean(counted, samples)


# With other values than these (the first is the default) the engine steps past the optimizer that
# PGPO scales, or no rank holds a whole output head.
_OFFLOAD = "zero_optimization.offload_optimizer"
_KEPT_OUT = {
    "zero_optimization.zenflow": (None,),
    "zero_optimization.compute_grad_norm": (True,),
    f"{_OFFLOAD}.super_offload": (False,),
    f"{_OFFLOAD}.ratio": (1.0,),
    "tensor_parallel.autotp_size": (0, 1),
}


def refuse_engine_settings(args: Any, optimizers: tuple[Any, Any]) -> None:
    """Refuses what PGPO cannot do under DeepSpeed, or would do wrongly.

    Args:
        args: a `PGPOConfig`.
        optimizers: the trainer's.

    Raises:
        ValueError: naming the setting.
    """
    if args.deepspeed_plugin is None:
        return
    if optimizers != (None, None):
        raise ValueError(
            "under DeepSpeed transformers makes the optimizer and the schedule anew, whatever "
            "optimizers=... holds; choose them by optim and lr_scheduler_type"
        )
    config = args.deepspeed_plugin.hf_ds_config
    stage = config.get_value("zero_optimization.stage", 0)
    if stage == 0:
        raise ValueError(
            "the DeepSpeed config has ZeRO stage 0, which shards nothing; set "
            "zero_optimization.stage to 1, 2 or 3, or use DDP"
        )
    if args.fp16 or config.get_value("fp16.enabled") is True:
        raise ValueError(
            "under DeepSpeed PGPOTrainer trains in float32 or bfloat16, found fp16, whose scaled "
            "loss decides by itself which steps count; set fp16=False, and bf16=True if you wish"
        )
    clips = config.get_value("gradient_clipping", 0.0)
    if args.max_grad_norm > 0 and clips not in ("auto", args.max_grad_norm):
        raise ValueError(
            f"DeepSpeed's engine clips, by its config: expected gradient_clipping="
            f"{args.max_grad_norm} there, as max_grad_norm, found {clips}; set it to 'auto', or "
            "max_grad_norm=0"
        )
    for name, allowed in _KEPT_OUT.items():
        if (found := config.get_value(name, allowed[0])) not in allowed:
            raise ValueError(
                f"the DeepSpeed config has {name}={found!r}, with which PGPO's steps would be "
                "wrong; leave it out"
            )
    every, micro_batches = args.steps_per_generation, args.gradient_accumulation_steps
    if args.averages_by_distilled and every % micro_batches:
        raise ValueError(
            "under DeepSpeed the rollouts of a whole step must be there before its first backward "
            f"(normalize_by_distilled): expected steps_per_generation={every} to be a multiple of "
            f"gradient_accumulation_steps={micro_batches}; change it, or set "
            "normalize_by_distilled=False"
        )
    whole = ("tiled_loss", "exact_resume", "teacher_from_student")
    on = [f"{name}=True" for name in whole if getattr(args, name)]
    on += ["multiplier='distance'"] if args.multiplier == "distance" else []
    if stage == 3 and on:
        raise ValueError(
            f"under ZeRO-3 no rank holds a whole model, expected none of what needs one, found "
            f"{', '.join(on)}; use ZeRO-2 or DDP, or set these to False (the multiplier to "
            "'information')"
        )
