"""What the self-teacher is shown: a random successful sibling, and feedback on the rollout."""

from __future__ import annotations

import math
import random
import re
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

import torch
from accelerate.logging import get_logger
from accelerate.utils import gather_object
from torch import Tensor
from trl.trainer.utils import pad

from ..trl.contract import TeacherContextBuilder, extract_last_user_text
from .rollouts import success_threshold

logger = get_logger(__name__)

# A template may open the tag in the prompt, and a completion then only closes it.
_REASONING = re.compile(r"\A(?:(?!<think>).)*?</think>|<think>.*?</think>", re.DOTALL)


class RolloutTeacherContextBuilder(TeacherContextBuilder):  # type: ignore[misc]
    """TRL's builder; the only changes are these.

    - Feedback that a reward function returned for a completion goes before the static
      `privileged_context` of its row.
    - With `random_demonstration`, each sample is shown one of its successful siblings, drawn from
      a generator of the run's seed and step, so that a resumed run draws the same.
    - A rollout without a reward is neither a demonstration nor counted as a failure.
    - Demonstration and feedback are text: no special token in them opens a turn.
    - In a prompt longer than `max_reprompt_len` they are cut, not the question. Choice: their last
      parts are kept, since answers and errors stand at the end; the longer text is cut first. A
      sample for which there is no room is not distilled.
    """

    def __init__(self, trainer: Any) -> None:
        super().__init__(trainer)
        self._known_tokens: list[str] | None = None

    def build(
        self,
        output: dict[str, Any],
        prompts: list[Any],
        rewards: Tensor,
        feedbacks: list[Any] | None = None,
    ) -> dict[str, Tensor]:
        trainer, accelerator, count = self.trainer, self.trainer.accelerator, len(prompts)
        said, static = (texts or [None] * count for texts in (trainer.rollout_feedback, feedbacks))
        own = [a if _is_text(a) else b for a, b in zip(said, static, strict=True)]
        # Of all ranks, in their order.
        padded = accelerator.pad_across_processes(
            output["completion_ids"], dim=1, pad_index=trainer._tokenizer.pad_token_id
        )
        completion_ids, rewards = accelerator.gather(padded), accelerator.gather(rewards)
        if trainer.rollout_unscored is not None:
            rewards = rewards.masked_fill(trainer.rollout_unscored, torch.nan)  # no success
        texts, known = gather_object(own), rewards.tolist()
        siblings = self._choose_demonstrations(known)
        uses_text = self._choose_feedback(texts, siblings)
        start, shown = accelerator.process_index * count, []
        for i, question in enumerate(prompts, start):
            prompt = TeacherPrompt(question)
            if (sibling := siblings[i]) is not None:
                prompt.demonstration = self._demonstration_text(completion_ids[sibling], question)
            if uses_text[i]:
                prompt.feedback = as_plain_text(texts[i], self._control_tokens(question))
            shown.append(prompt)
        ids, mask = self._tokenize(shown)
        is_shown = [float(prompt.is_shown) for prompt in shown]
        distilled = torch.tensor(is_shown, device=accelerator.device)
        self._record_metrics(known, texts, siblings, uses_text, distilled)
        return {
            "teacher_input_ids": torch.cat([ids, output["completion_ids"]], dim=1),
            "teacher_attention_mask": torch.cat([mask, output["completion_mask"]], dim=1),
            "self_distillation_mask": distilled,
        }

    def _group_size(self) -> int:
        trainer = self.trainer
        return int(
            trainer.num_generations if trainer.model.training else trainer.num_generations_eval
        )

    def _choose_demonstrations(self, rewards: list[float]) -> list[int | None]:
        """For each sample the index of the sibling to show, or None."""
        args, size = self.trainer.args, self._group_size()
        draw = random.Random(f"{args.seed}/{self.trainer._step}")
        threshold = success_threshold(args)
        chosen: list[int | None] = []
        for i in range(len(rewards)):
            group = range(i // size * size, (i // size + 1) * size)
            successes = [j for j in group if rewards[j] >= threshold]
            if args.dont_reprompt_on_self_success:
                successes = [j for j in successes if j != i]
            if not args.use_successful_as_teacher or not successes:
                chosen.append(None)
            else:
                chosen.append(draw.choice(successes) if args.random_demonstration else successes[0])
        return chosen

    def _choose_feedback(self, feedbacks: list[Any], siblings: list[int | None]) -> list[bool]:
        """For each sample whether its feedback is shown."""
        args, found = self.trainer.args, list(map(_is_text, feedbacks))
        if not args.include_environment_feedback:
            if any(found):
                logger.warning_once(
                    "The batch has feedback (a reward function's text or `privileged_context`), "
                    "but the teacher is not shown it, since `include_environment_feedback=False`. "
                    "Set it to True to use the feedback."
                )
            return [False] * len(found)
        alone = args.environment_feedback_only_without_solution
        pairs = zip(found, siblings, strict=True)
        return [is_text and not (alone and sibling is not None) for is_text, sibling in pairs]

    def _control_tokens(self, question: Any) -> list[str]:
        if self._known_tokens is None:
            ids: list[int] = []
            if isinstance(question, list):
                silent = [turn | {"content": _like(turn.get("content"), "x")} for turn in question]
                (ids,) = self.trainer._tokenize_prompts_untruncated([silent])
            self._known_tokens = control_tokens(self.trainer._tokenizer, set(ids))
        return self._known_tokens

    def _demonstration_text(self, completion_ids: Tensor, question: Any) -> str:
        ids = completion_ids[completion_ids != self.trainer._tokenizer.pad_token_id]
        text: str = self.trainer.processing_class.decode(ids, skip_special_tokens=True)
        if self.trainer.args.remove_thinking_from_demonstration:
            text = strip_reasoning(text)
        return as_plain_text(text, self._control_tokens(question))

    def _write(self, prompt: TeacherPrompt) -> Any:
        """The prompt through the templates: text, or messages as the question's are."""
        args, question = self.trainer.args, prompt.question
        if not prompt.is_shown:
            return question
        solution = feedback = ""
        if (shown := prompt.demonstration) is not None:
            solution = args.solution_template.format(successful_previous_attempt=shown)
        if (shown := prompt.feedback) is not None:
            feedback = args.feedback_template.format(feedback_raw=shown)
        if not isinstance(question, list):
            return self._build_reprompt_text(question, solution, feedback)
        last = question[-1]
        text = self._build_reprompt_text(extract_last_user_text(question), solution, feedback)
        return [*question[:-1], last | {"content": _like(last["content"], text)}]

    def _tokenize(self, prompts: list[TeacherPrompt]) -> tuple[Tensor, Tensor]:
        """Token ids and mask, padded on the left; prompts that are too long are shortened."""
        limit, device = self.trainer.args.max_reprompt_len, self.trainer.accelerator.device
        written = [self._write(prompt) for prompt in prompts]
        rows = self.trainer._tokenize_prompts_untruncated(written)
        for i, prompt in enumerate(prompts):
            if prompt.is_shown and len(rows[i]) > limit:
                prompts[i], rows[i] = self._shorten(prompt, limit)
        ids = [torch.as_tensor(row[-limit:], device=device) for row in rows]
        mask = [torch.ones(len(row), dtype=torch.long, device=device) for row in ids]
        padding = self.trainer._tokenizer.pad_token_id
        return (
            pad(ids, padding_value=padding, padding_side="left"),
            pad(mask, padding_value=0, padding_side="left"),
        )

    def _shorten(self, prompt: TeacherPrompt, limit: int) -> tuple[TeacherPrompt, list[int]]:
        """The prompt with as much of its texts as there is room for, and its token ids."""

        def ids(length: int) -> list[int]:
            written = self._write(prompt.shortened(length))
            (row,) = self.trainer._tokenize_prompts_untruncated([written])
            return list(row)

        length = largest(prompt.length, lambda length: len(ids(length)) <= limit)
        logger.warning_once(
            f"A teacher's prompt was longer than max_reprompt_len={limit}: what is shown beside "
            "the question is cut to its last part, and left out (the sample is not distilled) "
            "where there is no room. Raise max_reprompt_len to show all of it."
        )
        return prompt.shortened(length), ids(length)

    def _record_metrics(
        self,
        rewards: list[float],
        feedbacks: list[Any],
        siblings: list[int | None],
        uses_text: list[bool],
        distilled: Tensor,
    ) -> None:
        """TRL's metrics, under TRL's names, without groups that have no reward."""
        size, total = self._group_size(), len(rewards)
        threshold = success_threshold(self.trainer.args)
        groups = [rewards[i : i + size] for i in range(0, total, size)]
        known = [group for group in groups if not all(map(math.isnan, group))]
        successes = sum(any(reward >= threshold for reward in group) for group in known)
        fractions = {
            "success_group_fraction": successes / max(1, len(known)),
            "success_sample_fraction": sum(j is not None for j in siblings) / total,
            "feedback_available_fraction": sum(map(_is_text, feedbacks)) / total,
            "feedback_used_fraction": sum(uses_text) / total,
            "reprompt_sample_fraction": self.trainer.accelerator.gather(distilled).mean().item(),
        }
        self.last_metrics = {f"self_distillation/{k}": v for k, v in fractions.items()}


def _like(content: Any, text: str) -> Any:
    """A message's content in the form of another's: text, or a list of parts."""
    return [{"type": "text", "text": text}] if isinstance(content, list) else text


def _is_text(feedback: Any) -> bool:
    return isinstance(feedback, str) and bool(feedback.strip())


# Texts as a model reads them: no turn is opened by what is put into a prompt.


def strip_reasoning(text: str) -> str:
    """A completion without its `<think>...</think>`, also where the prompt holds the first tag."""
    return _REASONING.sub("", text).strip()


def control_tokens(tokenizer: Any, template_ids: Collection[int]) -> list[str]:
    """What a text must not hold: special tokens, and added ones that a chat template writes.

    Args:
        tokenizer: its added tokens that are not special may be turns, words or runs of spaces.
        template_ids: a conversation without a text of its own, which tells them apart.
    """
    added = tokenizer.added_tokens_decoder
    found = {token.content for key, token in added.items() if token.special or key in template_ids}
    found = {token for token in found | set(tokenizer.all_special_tokens) if token.strip()}
    return sorted(found, key=len, reverse=True)


def as_plain_text(text: str, tokens: Collection[str]) -> str:
    """A text in which none of the tokens occurs: a space comes behind the first character of each.

    What no tokenizer can encode (half a surrogate pair, as in a program's output) becomes `?`.
    """
    text = text.encode(errors="replace").decode()
    found = "|".join(map(re.escape, tokens))
    return re.sub(found, _broken, text) if found else text


def _broken(token: re.Match[str]) -> str:
    return f"{token[0][0]} {token[0][1:]}" if len(token[0]) > 1 else " "


@dataclass
class TeacherPrompt:
    """A question, and the texts that the teacher is shown beside it."""

    question: Any
    demonstration: str | None = None
    feedback: str | None = None

    @property
    def is_shown(self) -> bool:
        """Whether there is anything beside the question."""
        return self.demonstration is not None or self.feedback is not None

    @property
    def length(self) -> int:
        """Characters of the longer text."""
        return max(len(self.demonstration or ""), len(self.feedback or ""))

    def shortened(self, length: int) -> TeacherPrompt:
        """At most `length` characters of each text, its last; of 0, the question alone."""
        if length == 0:
            return TeacherPrompt(self.question)
        texts = (self.demonstration, self.feedback)
        return TeacherPrompt(self.question, *(_last_part(text, length) for text in texts))


def _last_part(text: str | None, length: int) -> str | None:
    """At most `length` characters, with dots where something is left out."""
    if text is None or len(text) <= length:
        return text
    dots = "..." if length > len("...") else ""
    return dots + text[len(text) - length + len(dots) :]


def largest(limit: int, fits: Callable[[int], bool]) -> int:
    """The largest number below `limit` that fits, by halving; 0 if none does."""
    low, high = 0, limit
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low
