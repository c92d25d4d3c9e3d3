"""Rollouts by transformers' `generate` that read the prompt of a group once, not once a rollout."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from accelerate.utils import DistributedType

from ..reading import generate
from ._host import SDPOTrainer


class SharedPromptsMixin(SDPOTrainer):  # type: ignore[misc]
    """Puts `reading.generate` in the place of the model's own, while the host draws rollouts."""

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


@contextmanager
def _reading_once(model: Any) -> Iterator[None]:
    own = model.generate
    model.generate = partial(generate, model, own)
    try:
        yield
    finally:
        del model.generate  # the attribute of this one object; its class keeps the method
