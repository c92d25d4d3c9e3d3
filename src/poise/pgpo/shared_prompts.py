"""The prompt of a group is read once, not once a rollout, for rollouts and by the teacher."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from accelerate.utils import DistributedType
from torch import Tensor

from ..loss.heads import SplitModel, split_causal_lm
from ..reading import generate, hidden_states
from ..trl.contract import disable_gradient_checkpointing
from .distillation import DistillationMixin


class SharedPromptsMixin(DistillationMixin):
    """Puts `reading.generate` in the place of the model's own while TRL draws rollouts, and reads
    the teacher's prompts the same way."""

    def _generate_transformers(
        self, prompt_ids: list[list[int]]
    ) -> tuple[list[list[int]], list[list[int]]]:
        # A sharded model is gathered by its own forward.
        sharded = self.is_fsdp_enabled or (
            self.accelerator.distributed_type == DistributedType.DEEPSPEED
        )
        if sharded or not self.args.share_prompts:
            return super()._generate_transformers(prompt_ids)
        with _reading_once(self.accelerator.unwrap_model(self.model_wrapped)):
            return super()._generate_transformers(prompt_ids)

    @torch.no_grad()
    def _teacher_hidden_states(self, batch: dict[str, Tensor]) -> tuple[SplitModel, Tensor]:
        """The teacher's, whose prompt is one for all rollouts of a group unless it shows one."""
        if self.args.share_prompts and not self.is_fsdp_enabled:
            teacher = split_causal_lm(self.accelerator.unwrap_model(self.teacher_model))
            with (
                self._get_teacher_context_for_self_distillation(),
                self.accelerator.autocast(),
                # With checkpointing, layers in training mode pass over the cache.
                disable_gradient_checkpointing(
                    teacher.model, self.args.gradient_checkpointing_kwargs
                ),
            ):
                hidden = hidden_states(
                    teacher.model,
                    teacher.backbone,
                    batch["teacher_input_ids"],
                    batch["teacher_attention_mask"],
                    batch["completion_ids"].size(1),
                )
            if hidden is not None:
                return teacher, hidden
        return super()._teacher_hidden_states(batch)


@contextmanager
def _reading_once(model: Any) -> Iterator[None]:
    own = model.generate
    model.generate = partial(generate, model, own)
    try:
        yield
    finally:
        del model.generate  # the attribute of this one object; its class keeps the method
