"""`StepScale` around the step of an engine that steps its optimizer in parts."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from ..optimizers import follows_rate, parameters
from .step_scale import StepScale


class EngineStepScale(StepScale):
    """`StepScale` around the step of a DeepSpeed engine.

    ZeRO steps the optimizer once for each parameter group, with the others out of sight; all of
    them get the multiplier. A step that ZeRO leaves out, since its gradient is not finite, is none.

    Args:
        engine: of `deepspeed.initialize`.
        viscosity, distance, policy, policy_again, scale_weight_decay: as `StepScale`'s.

    Raises:
        ValueError: under ZeRO-3, a `policy`, or an optimizer whose step does not follow its rate.
    """

    def __init__(self, engine: Any, *args: Any, policy: Any = None, **kwargs: Any) -> None:
        optimizer, is_sharded = engine.optimizer, engine.zero_optimization_partition_weights()
        if is_sharded and policy is not None:
            raise ValueError(
                "under ZeRO-3 no rank holds a whole model that a policy could be measured on in "
                "the middle of a step; leave policy out and call moved(...) after each step"
            )
        if is_sharded and not follows_rate(optimizer.optimizer):
            raise ValueError(
                f"{type(optimizer.optimizer).__name__}'s steps do not follow its learning rate, so "
                "they are scaled after they were taken, for which ZeRO-3 never has all parameters "
                "at hand; use AdamW, or ZeRO-1 or ZeRO-2"
            )
        self._engine = engine
        self._groups_in_sight: list[dict[str, Any]] = optimizer.param_groups
        self._has_begun = False
        self._withheld: list[tuple[Tensor, Tensor | None]] = []
        super().__init__(optimizer.optimizer, *args, policy=policy, **kwargs)
        self._whole_step, optimizer.step = optimizer.step, self._step

    def close(self) -> None:
        super().close()
        self._engine.optimizer.step = self._whole_step

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
        elif getattr(self._engine.optimizer, "overflow", False):
            self.discard()
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
