"""DeepSpeed, whose engine clips and steps inside the backward of the last micro-batch.

What PGPO does between backward and step it does before: the step's mean is a factor of the loss,
and whether the step counts is read off the loss.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from ..optimizers import parameters
from ..trl.contract import SDPOTrainer
from .distillation import loss_terms
from .step_scale import StepScale


class EngineStepScale(StepScale):
    """`StepScale` around the step of a DeepSpeed engine.

    ZeRO steps the optimizer once for each parameter group, with the others out of sight; all of
    them get the multiplier. A step that ZeRO leaves out, since its gradient is not finite, is none.

    Args:
        engine: of `deepspeed.initialize`.
        viscosity, distance, policy, scale_weight_decay: as `StepScale`'s.

    Raises:
        ValueError: under ZeRO-3, distance control with a `policy`, or an optimizer whose step does
            not follow its rate.
    """

    def __init__(self, engine: Any, *args: Any, **kwargs: Any) -> None:
        self._engine = engine
        self._groups_in_sight: list[dict[str, Any]] = engine.optimizer.param_groups
        self._has_begun = False
        self._withheld: list[tuple[Tensor, Tensor | None]] = []
        super().__init__(engine.optimizer.optimizer, *args, **kwargs)
        if self._is_sharded and not self._follows_rate:
            raise ValueError(
                f"{type(self.optimizer).__name__}'s steps do not follow its learning rate, so they "
                "are scaled after they were taken, for which ZeRO-3 never has all parameters at "
                "hand; use AdamW, or ZeRO-1 or ZeRO-2"
            )
        self._whole_step = engine.optimizer.step
        engine.optimizer.step = self._step

    def close(self) -> None:
        super().close()
        self._engine.optimizer.step = self._whole_step

    @property
    def _is_sharded(self) -> bool:
        return bool(self._engine.zero_optimization_partition_weights())

    @property
    def _groups(self) -> list[dict[str, Any]]:
        return self._groups_in_sight

    def _device(self) -> torch.device:
        return torch.device(self._engine.device)  # parameters may be offloaded, or out of sight

    def _step(self, *args: Any, **kwargs: Any) -> Any:
        self._groups_in_sight, self._has_begun = list(self.optimizer.param_groups), False
        result = self._whole_step(*args, **kwargs)
        if self._has_begun:
            super()._after_step(self.optimizer, args, kwargs)
        elif self._engine.optimizer.overflow:
            self.discard()
            self._is_skipped = False
        else:
            raise RuntimeError(
                "DeepSpeed's engine has stepped past the optimizer that it was given, so the step "
                "had no multiplier; leave such features (ZenFlow, SuperOffload) out of its config"
            )
        return result

    def _before_step(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        if not self._has_begun:
            self._has_begun = True
            super()._before_step(optimizer, args, kwargs)
        if self._is_skipped:
            # Without gradients the optimizer changes neither parameters nor moments.
            self._withheld = [(p, p.grad) for p in parameters(optimizer)]
            for param, _ in self._withheld:
                param.grad = None

    def _after_step(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        for param, gradient in self._withheld:  # with offload a buffer that the engine keeps
            param.grad = gradient
        self._withheld = []

    def _rescale(self, factor: float) -> None:
        super()._rescale(factor)  # of this rank's part
        self._engine.optimizer.update_lp_params()


class DeepSpeedMixin(SDPOTrainer):  # type: ignore[misc]
    """Does before the engine's step what PGPO does between backward and step."""

    _mean_factor = 1.0

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
            loss.register_hook(partial(torch.mul, self._mean_factor))
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


def refuse_engine_settings(args: Any) -> None:
    """Refuses what the DeepSpeed config asks for and PGPO cannot do, or would do wrongly.

    Args:
        args: a `PGPOConfig`.

    Raises:
        ValueError: naming the setting.
    """
    if args.deepspeed_plugin is None:
        return
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
    offload = "zero_optimization.offload_optimizer"
    past = {
        "zero_optimization.zenflow": None,
        "zero_optimization.compute_grad_norm": True,
        f"{offload}.super_offload": False,
        f"{offload}.ratio": 1.0,
    }
    for name, expected in past.items():
        if (found := config.get_value(name, expected)) != expected:
            raise ValueError(
                f"the DeepSpeed config has {name}={found!r}, with which the engine steps past the "
                "optimizer that PGPO scales; leave it out"
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
    on = [name for name in whole if getattr(args, name)]
    if stage == 3 and (on or args.multiplier == "distance"):
        distance = ["multiplier='distance'"] if args.multiplier == "distance" else []
        raise ValueError(
            f"under ZeRO-3 no rank holds a whole model, which {', '.join(on + distance)} need; "
            "use ZeRO-2 or DDP, or set multiplier='information' and the others to False"
        )
