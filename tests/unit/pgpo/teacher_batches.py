"""Tools of the teacher context's tests: a stand-in for the trainer, and batches as text."""

from __future__ import annotations

from collections.abc import Callable
from types import MethodType, SimpleNamespace
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor

from poise.trl.contract import SDPOTrainer
from tests.tiny import tiny_tokenizer

GROUP = 4
TEMPLATES = {
    "reprompt_template": "{prompt}:{solution}:{feedback}",
    "solution_template": "{successful_previous_attempt}",
    "feedback_template": "{feedback_raw}",
}
TOKENIZER = tiny_tokenizer()


def stand_in(
    make_config: Callable[..., Any],
    step: int = 0,
    rollout_feedback: Any = None,
    tokenizer: Any = TOKENIZER,
    **overrides: Any,
) -> Any:
    """What a builder reads of its trainer; overrides are of the configuration."""
    settings = TEMPLATES | {"include_environment_feedback": True}
    trainer = SimpleNamespace(
        args=make_config(**settings | overrides),
        accelerator=Accelerator(cpu=True),
        model=SimpleNamespace(training=True),
        num_generations=GROUP,
        num_generations_eval=2,
        chat_template_kwargs={},
        processing_class=tokenizer,
        rollout_feedback=rollout_feedback,
        rollout_unscored=None,
        _tokenizer=tokenizer,
        _step=step,
    )
    host = SDPOTrainer._tokenize_prompts_untruncated
    trainer._tokenize_prompts_untruncated = MethodType(host, trainer)
    return trainer


def batch(completions: list[str]) -> dict[str, Tensor]:
    encoded = TOKENIZER(completions, padding=True, padding_side="right", return_tensors="pt")
    return {"completion_ids": encoded["input_ids"], "completion_mask": encoded["attention_mask"]}


def build(
    builder: Any,
    rewards: list[float],
    completions: list[str] | None = None,
    prompts: list[Any] | None = None,
    feedbacks: list[Any] | None = None,
) -> dict[str, Tensor]:
    """One build; by default completion i is the i-th letter and prompt i the group's digit."""
    completions = completions or [chr(ord("a") + i) for i in range(len(rewards))]
    prompts = prompts or [str(i // GROUP) for i in range(len(rewards))]
    built: dict[str, Tensor] = builder.build(
        batch(completions), prompts, torch.tensor(rewards), feedbacks
    )
    return built


def texts(built: dict[str, Tensor]) -> list[str]:
    """Teacher inputs as text, prompt and completion, without padding."""
    return [
        TOKENIZER.decode(ids[mask.bool()]).replace(" ", "")
        for ids, mask in zip(
            built["teacher_input_ids"], built["teacher_attention_mask"], strict=True
        )
    ]


def shown_siblings(built: dict[str, Tensor]) -> list[int | None]:
    """Index of the demonstration in each teacher prompt."""
    parts = [text.split(":") for text in texts(built)]
    return [ord(part[1]) - ord("a") if len(part) == 3 else None for part in parts]
