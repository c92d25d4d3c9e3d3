"""Ask a model every question k times, by transformers' `generate`, and save what it says.

The records of an interrupted evaluation are continued: batches are formed from all questions, in
an order that depends on nothing else, and each is seeded by its own questions, so that the rest
comes out as it would have without the interruption.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

import torch
from tqdm import tqdm

from .generation import Completion, Sampling, complete
from .records import QuestionRecord, RecordWriter
from .scoring import Row, Score


@dataclass(frozen=True)
class Prepared:
    """A question with its prompt as text and as token ids."""

    row: Row
    text: str
    tokens: list[int]


def prepare(
    rows: Sequence[Row],
    tokenizer: Any,
    *,
    room: int | None = None,
    template: Mapping[str, Any] | None = None,
) -> list[Prepared]:
    """Write the prompts down as the model reads them.

    Args:
        rows: Questions with ``prompt`` (text or chat messages), and ``id``; without it isomers
            are named by set, domain and test, other questions by their place.
        tokenizer: Its chat template renders chat messages.
        room: Most tokens that a prompt may have, None for no bound.
        template: What the chat template is told beside the messages, e.g. ``enable_thinking``.

    Raises:
        ValueError: no rows, two rows of one id, chat messages without a chat template, or a
            prompt that is empty or too long.
    """
    if not rows:
        raise ValueError("evaluation: expected one or more questions, found none")
    seen: set[str] = set()
    prepared = []
    for place, row in enumerate(rows):
        row = {"id": _name(row, place), **row}
        if row["id"] in seen:
            raise ValueError(f"evaluation: expected each id once, found {row['id']!r} twice")
        seen.add(row["id"])
        text, tokens = _render(row["prompt"], tokenizer, template or {})
        if not tokens:
            raise ValueError(f"question {row['id']!r}: expected a prompt, found an empty one")
        if room is not None and len(tokens) > room:
            raise ValueError(
                f"question {row['id']!r}: its prompt has {len(tokens)} tokens, and the model has "
                f"room for {room} beside the answer; lower max_new_tokens, or leave it out"
            )
        prepared.append(Prepared(row, text, tokens))
    return prepared


def _name(row: Row, place: int) -> str:
    if row.get("isomer_id") is None:
        return f"row-{place}"
    parts = (row["isomer_id"], row.get("domain"), row.get("test"))
    return "/".join(str(part) for part in parts if part is not None)


def _render(prompt: Any, tokenizer: Any, template: Mapping[str, Any]) -> tuple[str, list[int]]:
    if isinstance(prompt, str):
        ids = list(tokenizer(prompt)["input_ids"])
        # Some tokenizers put an end behind every text, after which no answer would start.
        end = tokenizer.eos_token
        if end and ids[-1:] == [tokenizer.eos_token_id] and not prompt.endswith(end):
            ids.pop()
        return prompt, ids
    if not tokenizer.chat_template:
        raise ValueError(
            "the prompts are chat messages, but the tokenizer has no chat template; "
            "use an instruction-tuned model, or questions whose prompts are plain text"
        )
    text = tokenizer.apply_chat_template(
        prompt, add_generation_prompt=True, tokenize=False, **template
    )
    # The template has written the special tokens already.
    return text, list(tokenizer(text, add_special_tokens=False)["input_ids"])


def evaluate(
    model: Any,
    tokenizer: Any,
    questions: Sequence[Prepared],
    writer: RecordWriter,
    score: Score,
    sampling: Sampling,
    *,
    seed: int = 0,
    batch_size: int = 64,
    label: str = "evaluating",
    tell: Callable[[int, int], None] | None = None,
) -> None:
    """Sample all questions that the records lack, batch by batch, with a progress bar.

    Args:
        model: As `generation.complete` takes it.
        tokenizer: Its tokenizer.
        questions: From `prepare`.
        writer: Open records; what they hold is skipped.
        score: (row, completion) -> answer that was found, and its reward.
        sampling: How to draw.
        seed: Of the samples.
        batch_size: Most completions in flight at a time.
        label: What the progress bar says.
        tell: Is called with how many of how many questions have been answered.

    Raises:
        ValueError: the records hold a question of this id with another prompt, or batch_size is
            below 1.
    """
    _check_same_questions(questions, writer)
    progress = tqdm(
        total=len(questions), initial=len(writer.done), desc=label, unit="question", leave=False
    )
    with progress:
        for batch in _batches(questions, sampling.k, batch_size):
            missing = [q for q in batch if q.row["id"] not in writer.done]
            if not missing:
                continue
            # A part of a batch would be padded otherwise: it is drawn whole, as it was before.
            with _seeded(seed, batch):
                prompts = [question.tokens for question in batch]
                # A batch smaller than k splits the samples of one question.
                sampled = complete(model, tokenizer, prompts, sampling, most_rows=batch_size)
            records = [
                _record(question, completions, score)
                for question, completions in zip(batch, sampled, strict=True)
                if question.row["id"] not in writer.done
            ]
            writer.write(records)
            progress.update(len(records))
            if tell is not None:
                tell(len(writer.done), len(questions))


def _check_same_questions(questions: Sequence[Prepared], writer: RecordWriter) -> None:
    for question in questions:
        done = writer.done.get(question.row["id"])
        if done is not None and (done.prompt, done.answer) != (
            question.text,
            _answer(question.row),
        ):
            raise ValueError(
                f"{writer.path}: question {done.id!r} has another prompt or answer there; "
                "the questions have changed: choose another output folder, or overwrite it "
                "(--overwrite)"
            )


def _batches(
    questions: Sequence[Prepared], k: int, batch_size: int
) -> Iterator[Sequence[Prepared]]:
    """Neighbours in length together, so that little is padding; the longest first, so that what
    does not fit into memory shows at once."""
    if batch_size < 1:
        raise ValueError(f"batch_size: expected 1 or more, found {batch_size}")
    order = sorted(questions, key=lambda q: (-len(q.tokens), q.row["id"]))
    size = max(1, batch_size // k)
    return (order[i : i + size] for i in range(0, len(order), size))


@contextmanager
def _seeded(seed: int, batch: Sequence[Prepared]) -> Iterator[None]:
    """Random numbers that depend on seed and batch alone; the caller's are as before afterwards."""
    names = "\n".join([str(seed), *(question.row["id"] for question in batch)])
    with torch.random.fork_rng(range(torch.accelerator.device_count())):
        torch.manual_seed(int.from_bytes(sha256(names.encode()).digest()[:8]))
        yield


def _record(question: Prepared, completions: Sequence[Completion], score: Score) -> QuestionRecord:
    row = question.row
    scored = [score(row, completion.text) for completion in completions]
    return QuestionRecord(
        id=row["id"],
        domain=row.get("domain") or "all",
        level=row.get("level", row.get("depth")),
        isomer_id=row.get("isomer_id"),
        test=row.get("test"),
        answer=_answer(row),
        prompt=question.text,
        completions=tuple(c.text for c in completions),
        extracted=tuple(answer for answer, _ in scored),
        rewards=tuple(reward for _, reward in scored),
        lengths=tuple(c.length for c in completions),
        finished=tuple(c.finished for c in completions),
    )


def _answer(row: Row) -> str:
    """The right answer as text; empty where only the task's scorer knows what is right."""
    return str(row.get("answer") or "")
