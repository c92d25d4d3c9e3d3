"""What the self-teacher is shown: a random successful sibling, and feedback on the rollout."""

from __future__ import annotations

import random
import re
from dataclasses import dataclass
from typing import Any

import torch
from accelerate.logging import get_logger
from accelerate.utils import gather_object
from torch import Tensor

from ._host import TeacherContextBuilder, extract_last_user_text

logger = get_logger(__name__)


@dataclass
class _Samples:
    """The generation batch over all ranks, in its global order."""

    prompts: list[Any]
    feedbacks: list[Any]
    rewards: list[float]
    completion_ids: Tensor


class RolloutTeacherContextBuilder(TeacherContextBuilder):  # type: ignore[misc]
    """TRL's builder; the only changes are the two below, each on its own switch.

    - Feedback that a reward function returned for a completion goes before the static
      `privileged_context` of its row.
    - With `random_demonstration`, each sample is shown one of its successful siblings, drawn from
      a generator of the run's seed and step, so that a resumed run draws the same.
    """

    def build(
        self,
        output: dict[str, Any],
        prompts: list[Any],
        rewards: Tensor,
        feedbacks: list[Any] | None = None,
    ) -> dict[str, Tensor]:
        feedbacks = self._merge_feedback(feedbacks, len(prompts))
        if not self.trainer.args.random_demonstration:
            return super().build(output, prompts, rewards, feedbacks=feedbacks)  # type: ignore[no-any-return]
        samples = self._gather(output, prompts, rewards, feedbacks)
        self._warn_of_ignored_feedback(samples)
        demonstrations = self._choose_demonstrations(samples)
        used_feedback = [
            self._uses_feedback(samples.feedbacks[i], demonstrations[i] is not None)
            for i in range(len(samples.prompts))
        ]
        self._record_metrics(samples, demonstrations, used_feedback)
        start = self.trainer.accelerator.process_index * len(prompts)
        local = range(start, start + len(prompts))
        messages = [
            self._teacher_prompt(samples, i, demonstrations[i], used_feedback[i]) for i in local
        ]
        teacher = self._tokenize_teacher_messages(messages)
        mask = [float(demonstrations[i] is not None or used_feedback[i]) for i in local]
        return {
            "teacher_input_ids": torch.cat(
                [teacher["prompt_ids"], output["completion_ids"]], dim=1
            ),
            "teacher_attention_mask": torch.cat(
                [teacher["prompt_mask"], output["completion_mask"]], dim=1
            ),
            "self_distillation_mask": torch.tensor(mask, device=self.trainer.accelerator.device),
        }

    def _merge_feedback(self, static: list[Any] | None, count: int) -> list[Any]:
        static = [None] * count if static is None else static
        rollout = self.trainer.rollout_feedback or [None] * count
        return [own if _is_text(own) else row for own, row in zip(rollout, static, strict=True)]

    def _gather(
        self, output: dict[str, Any], prompts: list[Any], rewards: Tensor, feedbacks: list[Any]
    ) -> _Samples:
        accelerator = self.trainer.accelerator
        padded = accelerator.pad_across_processes(
            output["completion_ids"], dim=1, pad_index=self.trainer._tokenizer.pad_token_id
        )
        return _Samples(
            prompts=gather_object(prompts),
            feedbacks=gather_object(feedbacks),
            rewards=accelerator.gather(rewards).tolist(),
            completion_ids=accelerator.gather(padded),
        )

    def _warn_of_ignored_feedback(self, samples: _Samples) -> None:
        ignored = not self.trainer.args.include_environment_feedback
        if ignored and any(map(_is_text, samples.feedbacks)):
            logger.warning_once(
                "The batch has feedback (a reward function's text or `privileged_context`), but "
                "the teacher is not shown it, since `include_environment_feedback=False`. Set it "
                "to True to use the feedback."
            )

    def _group_size(self) -> int:
        trainer = self.trainer
        size: int = (
            trainer.num_generations if trainer.model.training else trainer.num_generations_eval
        )
        return size

    def _choose_demonstrations(self, samples: _Samples) -> list[int | None]:
        """For each sample the index of the sibling to show, or None."""
        args, size = self.trainer.args, self._group_size()
        draw = random.Random(f"{args.seed}/{self.trainer._step}")
        chosen: list[int | None] = []
        for i in range(len(samples.prompts)):
            group = range(i // size * size, (i // size + 1) * size)
            successes = [j for j in group if samples.rewards[j] >= args.success_reward_threshold]
            if args.dont_reprompt_on_self_success:
                successes = [j for j in successes if j != i]
            has_one = args.use_successful_as_teacher and successes
            chosen.append(draw.choice(successes) if has_one else None)
        return chosen

    def _uses_feedback(self, feedback: Any, has_demonstration: bool) -> bool:
        args = self.trainer.args
        if not args.include_environment_feedback or not _is_text(feedback):
            return False
        return not (args.environment_feedback_only_without_solution and has_demonstration)

    def _teacher_prompt(
        self, samples: _Samples, index: int, demonstration: int | None, use_feedback: bool
    ) -> Any:
        prompt, args = samples.prompts[index], self.trainer.args
        if demonstration is None and not use_feedback:
            return prompt
        solution = feedback = ""
        if demonstration is not None:
            text = self._demonstration_text(samples.completion_ids[demonstration])
            solution = args.solution_template.format(successful_previous_attempt=text)
        if use_feedback:
            feedback = args.feedback_template.format(feedback_raw=samples.feedbacks[index])
        if not isinstance(prompt, list):
            return self._build_reprompt_text(prompt, solution, feedback)
        content = self._build_reprompt_text(extract_last_user_text(prompt), solution, feedback)
        return [*prompt[:-1], {"role": "user", "content": content}]

    def _demonstration_text(self, completion_ids: Tensor) -> str:
        ids = completion_ids[completion_ids != self.trainer._tokenizer.pad_token_id]
        text: str = self.trainer.processing_class.decode(ids, skip_special_tokens=True)
        if self.trainer.args.remove_thinking_from_demonstration:
            text = re.sub(r"<think>.*?</think>", "", text, flags=re.DOTALL).strip()
        return text

    def _record_metrics(
        self, samples: _Samples, demonstrations: list[int | None], used_feedback: list[bool]
    ) -> None:
        """The host's metrics, under the host's names."""
        size, total = self._group_size(), len(samples.prompts)
        threshold = self.trainer.args.success_reward_threshold
        groups = [samples.rewards[i : i + size] for i in range(0, total, size)]
        shown = [demonstration is not None for demonstration in demonstrations]
        fractions = {
            "success_group_fraction": sum(any(r >= threshold for r in g) for g in groups)
            / len(groups),
            "success_sample_fraction": sum(shown) / total,
            "feedback_available_fraction": sum(map(_is_text, samples.feedbacks)) / total,
            "feedback_used_fraction": sum(used_feedback) / total,
            "reprompt_sample_fraction": sum(
                s or u for s, u in zip(shown, used_feedback, strict=True)
            )
            / total,
        }
        self.last_metrics = {f"self_distillation/{k}": v for k, v in fractions.items()}


def _is_text(feedback: Any) -> bool:
    return isinstance(feedback, str) and bool(feedback.strip())
