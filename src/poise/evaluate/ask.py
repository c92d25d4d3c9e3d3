"""What models answer: each question is asked k times, by transformers' `generate`.

Batches are formed from all questions, in an order that depends on nothing else, and each is seeded
by its own questions: an evaluation that was interrupted goes on as if it had not been.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from tqdm import tqdm
from transformers import GenerationConfig, StoppingCriteriaList, StopStringCriteria

from ..prompt_cache import CACHE, read_once, repeated
from .records import QuestionRecord, RecordWriter
from .scoring import Row, Score


@dataclass(frozen=True)
class Sampling:
    """How completions are drawn.

    Choice: the defaults of k, temperature and top_p are those of the paper's validation.

    Raises:
        ValueError: A value outside its range, or several samples where all would be equal.
    """

    k: int = 16  # samples per question
    temperature: float = 0.6  # 0 is greedy
    top_p: float = 0.95  # least mass of the likeliest tokens to draw from
    max_new_tokens: int = 512
    stop: tuple[str, ...] = ()  # texts that end a completion, which is cut before the first

    def __post_init__(self) -> None:
        for name in ("k", "max_new_tokens"):
            if not isinstance(value := getattr(self, name), int) or value < 1:
                raise ValueError(f"{name}: expected a whole number of at least 1, found {value!r}")
        if not 0.0 <= self.temperature < float("inf"):
            raise ValueError(f"temperature: expected 0 or more, found {self.temperature!r}")
        if not 0.0 < self.top_p <= 1.0:
            raise ValueError(f"top_p: expected a value in (0, 1], found {self.top_p!r}")
        if not all(self.stop):
            raise ValueError(f"stop: expected texts that are not empty, found {self.stop!r}")
        if self.temperature == 0.0 and self.k > 1:
            raise ValueError(
                f"temperature 0 is greedy, so all {self.k} samples would be equal; use k = 1"
            )


@dataclass(frozen=True)
class Prepared:
    """A question with its prompt as text and as token ids."""

    row: Row
    text: str
    tokens: list[int]

    @property
    def id(self) -> str:
        return str(self.row["id"])

    @property
    def answer(self) -> str:
        """The right answer as text; empty where only the task's scorer knows what is right."""
        return str(self.row.get("answer") or "")


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
        template: Arguments of the chat template, e.g. ``enable_thinking``.

    Raises:
        ValueError: No rows, two rows of one id, a domain twice in an isomer set, chat messages
            without a chat template, or a prompt that is empty or too long.
    """
    if not rows:
        raise ValueError("evaluation: expected one or more questions, found none")
    prepared: dict[str, Prepared] = {}
    isomers = set()
    for place, row in enumerate(rows):
        parts = (row.get(column) for column in ("isomer_id", "domain", "test"))
        name = "/".join(str(part) for part in parts if part is not None)
        name = name if row.get("isomer_id") is not None else f"row-{place}"
        question = Prepared({"id": name, **row}, *_render(row["prompt"], tokenizer, template or {}))
        name, length = question.id, len(question.tokens)
        if name in prepared:
            raise ValueError(f"evaluation: expected each id once, found {name!r} twice")
        if (isomer := row.get("isomer_id")) is not None:
            domain = row.get("domain") or "all"
            if (problem := (isomer, domain, row.get("test"))) in isomers:
                raise ValueError(
                    f"question {name!r}: expected each domain once in an isomer set, found "
                    f"{domain!r} twice in {isomer!r}; give each row its 'domain'"
                )
            isomers.add(problem)
        if not length:
            raise ValueError(f"question {name!r}: expected a prompt, found an empty one")
        if room is not None and length > room:
            raise ValueError(
                f"question {name!r}: its prompt has {length} tokens, and the model has room for "
                f"{room} beside the answer; lower max_new_tokens, or leave it out"
            )
        prepared[name] = question
    return list(prepared.values())


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
            "the prompts are chat messages, but the tokenizer has no chat template; use an "
            "instruction-tuned model, or questions in plain text"
        )
    text = tokenizer.apply_chat_template(
        prompt, add_generation_prompt=True, tokenize=False, **template
    )
    # The template has written the special tokens already.
    return text, list(tokenizer(text, add_special_tokens=False)["input_ids"])


def check_answered(
    questions: Sequence[Prepared], answered: Iterable[QuestionRecord], path: Path
) -> None:
    """Check that the answers in a file are to these questions.

    Raises:
        ValueError: The file holds a question of one of their ids with another prompt or answer.
    """
    there = {done.id: (done.prompt, done.answer) for done in answered}
    for question in questions:
        now = question.text, question.answer
        if there.get(question.id, now) != now:
            raise ValueError(
                f"{path}: question {question.id!r} has another prompt or answer there; choose "
                "another output folder, or overwrite it (--overwrite)"
            )


@dataclass(frozen=True)
class Completion:
    """Sampled text, its tokens without the one that ended it, and whether it ended by itself."""

    text: str
    length: int
    finished: bool


def ask_questions(
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
    draw: Callable[..., list[list[Completion]]] | None = None,
) -> None:
    """Sample all questions that the records lack, batch by batch, with a progress bar.

    Args:
        writer: Open records; what they hold is skipped.
        score: From `scoring.scorer_of`.
        batch_size: Most completions in flight at a time.
        label: Of the progress bar.
        tell: Is called with how many of how many questions have been answered.
        draw: Takes what `complete` takes, and is it by default.

    Raises:
        ValueError: The records hold a question of this id with another prompt, or batch_size is
            below 1.
    """
    check_answered(questions, writer.done.values(), writer.path)
    if batch_size < 1:
        raise ValueError(f"batch_size: expected 1 or more, found {batch_size}")
    draw = draw or complete
    # Neighbours in length together, so that little is padding; the longest first, so that what
    # does not fit into memory shows at once.
    order = sorted(questions, key=lambda q: (-len(q.tokens), q.id))
    size = max(1, batch_size // sampling.k)
    bar = tqdm(total=len(order), initial=len(writer.done), desc=label, unit="question", leave=False)
    with bar:
        for batch in (order[first : first + size] for first in range(0, len(order), size)):
            if all(question.id in writer.done for question in batch):
                continue
            # A part of a batch would be padded otherwise: it is drawn whole, as it was before.
            with _seeded(seed, batch):
                prompts = [question.tokens for question in batch]
                # A batch smaller than k splits the samples of one question.
                sampled = draw(model, tokenizer, prompts, sampling, most_rows=batch_size)
            records = [
                _record(question, completions, score)
                for question, completions in zip(batch, sampled, strict=True)
                if question.id not in writer.done
            ]
            writer.write(records)
            bar.update(len(records))
            if tell is not None:
                tell(len(writer.done), len(questions))


@contextmanager
def _seeded(seed: int, batch: Sequence[Prepared]) -> Iterator[None]:
    """Random numbers that depend on seed and batch alone; the caller's are as before afterwards."""
    names = "\n".join([str(seed), *(question.id for question in batch)])
    with torch.random.fork_rng(range(torch.accelerator.device_count())):
        torch.manual_seed(int.from_bytes(sha256(names.encode()).digest()[:8]))
        yield


def _record(question: Prepared, completions: Sequence[Completion], score: Score) -> QuestionRecord:
    row = question.row
    scored = [score(row, completion.text) for completion in completions]
    return QuestionRecord(
        id=question.id,
        domain=row.get("domain") or "all",
        level=row.get("level", row.get("depth")),
        isomer_id=row.get("isomer_id"),
        test=row.get("test"),
        answer=question.answer,
        prompt=question.text,
        completions=tuple(c.text for c in completions),
        extracted=tuple(answer for answer, _ in scored),
        rewards=tuple(reward for _, reward in scored),
        lengths=tuple(c.length for c in completions),
        finished=tuple(c.finished for c in completions),
    )


def complete(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[Sequence[int]],
    sampling: Sampling,
    most_rows: int | None = None,
) -> list[list[Completion]]:
    """Completions of a batch of prompts, k each.

    Args:
        model: A causal language model in evaluation mode, from `load.load`: what its generation
            config says of sampling would hold where `sampling` is silent.
        prompts: Token ids of each prompt.
        most_rows: Most samples of one prompt in flight at a time, None for all k.
    """
    ends = stop_tokens(model, tokenizer)
    # Ended rows are filled with an end, so that the first one is where a completion ends.
    pad = ends[0] if ends else 0
    ids = _left_padded(prompts, pad).to(model.device)
    mask = _left_padded([[1] * len(prompt) for prompt in prompts], 0).to(model.device)
    how: dict[str, Any] = {"do_sample": False}
    if sampling.temperature > 0.0:
        how = {"do_sample": True, "temperature": sampling.temperature}
        how |= {"top_p": sampling.top_p, "top_k": 0}
    config = GenerationConfig(
        **how,
        max_new_tokens=sampling.max_new_tokens,
        eos_token_id=ends or None,
        pad_token_id=pad,
        disable_compile=True,  # lengths differ from batch to batch, so that it would not pay
    )
    completions: list[list[Completion]] = [[] for _ in prompts]
    most = min(most_rows or sampling.k, sampling.k)
    read = read_once(model, ids, mask, whole=sampling.k > 1)
    for first in range(0, sampling.k, most):
        k = min(most, sampling.k - first)
        # What was read is kept for the samples that come later.
        is_last = first + k == sampling.k
        output = model.generate(
            input_ids=ids.repeat_interleave(k, 0),
            attention_mask=mask.repeat_interleave(k, 0),
            generation_config=config,
            stopping_criteria=_stop_criteria(tokenizer, sampling.stop),
            **{CACHE: None if read is None else repeated(read, k, not is_last)},
        )
        for row, tokens in enumerate(output[:, ids.shape[1] :].tolist()):
            completions[row // k].append(completion_of(tokens, tokenizer, ends, sampling))
    return completions


def stop_tokens(model: Any, tokenizer: Any) -> list[int]:
    """Ids that end a completion: the generation config's and the tokenizer's end of sequence."""
    configured = getattr(model.generation_config, "eos_token_id", None)
    ids = configured if isinstance(configured, list) else [configured]
    return sorted({i for i in [*ids, tokenizer.eos_token_id] if i is not None})


def _left_padded(rows: Sequence[Sequence[int]], value: int) -> Tensor:
    return pad_sequence(list(map(torch.tensor, rows)), True, value, padding_side="left")


@lru_cache(maxsize=1)
def _stop_criteria(tokenizer: Any, stop: tuple[str, ...]) -> StoppingCriteriaList:
    """What `stop_strings` makes of the vocabulary anew in each call of `generate`."""
    return StoppingCriteriaList([StopStringCriteria(tokenizer, list(stop))] if stop else [])


def completion_of(
    tokens: list[int], tokenizer: Any, ends: Sequence[int], sampling: Sampling
) -> Completion:
    """Sampled tokens as text, cut before the first end and the first stop."""
    length = next((i for i, token in enumerate(tokens) if token in ends), len(tokens))
    text = tokenizer.decode(tokens[:length], skip_special_tokens=True)
    cuts = [place for stop in sampling.stop if (place := text.find(stop)) >= 0]
    finished = bool(cuts) or length < sampling.max_new_tokens
    return Completion(text[: min(cuts)] if cuts else text, length, finished)
