"""Reasoning Gym tasks by name, scored by their own verifiers (extra ``reasoning-gym``).

Source: Stojanovski et al., arXiv 2505.24760. A row names its task, seed, settings and index, so
that the reward function can make the very entry again and hand it to the task's scorer: some
scorers need objects that no table can hold.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from ..rewards import Completion, completion_text, tagged_answer
from ..rows import check_dataset
from ..splits import check_split, stable_fraction, stable_split
from .prompts import Prompt, get_style

if TYPE_CHECKING:
    from datasets import Dataset

# Entries of a task's pool; fixed, because what an entry is may depend on the size.
POOL = 10_000
SYSTEM = """Think about the question step by step. \
Then give the final answer, and nothing else, between <answer> and </answer>."""


def load_reasoning_gym(
    task: str,
    split: str = "train",
    count: int = 1000,
    seed: int = 0,
    style: str = "chat",
    **settings: Any,
) -> Dataset:
    """Make `count` different questions of a Reasoning Gym task.

    Args:
        task: Name of the task, e.g. ``leg_counting``.
        split: ``train``, ``validation`` or ``test``; a hash of the question decides, so splits
            share none.
        style: ``chat`` (system and user message, answer in tags) or ``plain`` or ``short`` (text).
        **settings: The task's own settings, e.g. ``max_animals=5``.

    Returns:
        Columns ``id``, ``domain``, ``prompt``, ``task``, ``task_seed``, ``task_index``,
        ``task_settings``, and ``answer`` if every question has a single one.

    Raises:
        ImportError: Reasoning Gym is not installed.
        ValueError: An unknown task, split, style or setting, or too few different questions.
    """
    from datasets import Dataset

    if not task:
        raise ValueError("reasoning_gym: expected a task, as in reasoning_gym:leg_counting")
    get_style(style)
    check_split(split)
    # Neighbouring seeds of a task share entries (an entry's own seed is seed + index).
    task_seed = int(stable_fraction(f"reasoning_gym|{task}|{seed}") * 2**31)
    written = json.dumps(settings)
    pool = _pool(task, task_seed, written)
    rows: dict[str, dict[str, Any]] = {}
    for index in range(POOL):
        if len(rows) == count:
            break
        entry = pool[index]
        question = entry["question"]
        if question in rows or stable_split(f"reasoning_gym|{task}|{question}") != split:
            continue
        prompt: Prompt = f"Question: {question.strip()}\nAnswer:"
        if style not in ("plain", "short"):
            user = {"role": "user", "content": question.strip()}
            prompt = [{"role": "system", "content": SYSTEM}, user]
        rows[question] = {
            "id": f"{task}-{task_seed}-{index}",
            "domain": task,
            "prompt": prompt,
            "answer": entry["answer"],
            "task": task,
            "task_seed": task_seed,
            "task_index": index,
            "task_settings": written,
        }
    if len(rows) != count:
        raise ValueError(
            f"reasoning_gym:{task}: expected {count} different questions in split {split!r}, found "
            f"{len(rows)}; lower the count or change the task's settings"
        )
    found = list(rows.values())
    if any(row["answer"] is None for row in found):
        for row in found:
            del row["answer"]
    check_dataset(found, filled=("prompt", "answer"), name=f"reasoning_gym:{task}")
    return Dataset.from_list(found)


def reasoning_gym_reward(
    completions: Sequence[Completion],
    task: Sequence[str],
    task_seed: Sequence[int],
    task_index: Sequence[int],
    task_settings: Sequence[str],
    **columns: Any,
) -> list[float]:
    """Score completions by the task's own scorer, from 0 to 1 (TRL's signature).

    The answer is what stands in the last ``<answer>`` tags, or else behind the last ``Answer:``,
    or else all of the text.
    """
    rewards = []
    batch = zip(completions, task_index, task, task_seed, task_settings, strict=True)
    for completion, index, *pool in batch:
        entries, answer = _pool(*pool), final_answer(completion_text(completion))
        rewards.append(float(entries.score_answer(answer, entry=entries[index])))
    return rewards


def final_answer(text: str) -> str:
    """The part of a completion that is its answer."""
    tagged = tagged_answer(text)
    return (text.rpartition("Answer:")[2] if tagged is None else tagged).strip()


@lru_cache(maxsize=8)
def _pool(task: str, seed: int, settings: str) -> Any:
    try:
        import reasoning_gym
        from reasoning_gym.factory import DATASETS
    except ImportError:
        raise ImportError(
            f"reasoning_gym:{task} needs the package reasoning-gym, which is not installed; "
            "install it with: pip install 'poise[reasoning-gym]'"
        ) from None
    if task not in DATASETS:
        near = difflib.get_close_matches(task, DATASETS, n=3)
        hint = f"; did you mean {' or '.join(near)}?" if near else ""
        raise ValueError(
            f"reasoning_gym: expected one of its {len(DATASETS)} tasks, found {task!r}{hint}"
        )
    try:
        return reasoning_gym.create_dataset(task, size=POOL, seed=seed, **json.loads(settings))
    except (TypeError, AssertionError, ValueError) as error:
        raise ValueError(
            f"reasoning_gym:{task}: expected settings that the task knows, found {settings} "
            f"({error})"
        ) from None
