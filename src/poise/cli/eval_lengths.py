"""Whether the right answers to isomers fit into the completions that `poise eval` lets be."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any


def cut_references(
    rows: Sequence[Mapping[str, Any]], tokenizer: Any, max_new_tokens: int
) -> str | None:
    """One line on the isomers whose reference completions are too long, None if there are none.

    Args:
        rows: Questions; those without ``isomer_id`` or without ``completion`` are not looked at.
        tokenizer: The model's.
        max_new_tokens: Longest completion in tokens.
    """
    seen, longer, longest = Counter[str](), Counter[str](), 0
    for row in rows:
        if not row.get("isomer_id") or not row.get("completion"):
            continue
        text = _plain(row["completion"])
        length = len(tokenizer(text, add_special_tokens=False)["input_ids"])
        test = row.get("test") or "all"
        seen[test] += 1
        longer[test] += length > max_new_tokens
        longest = max(longest, length)
    if longest <= max_new_tokens:
        return None
    shares = ", ".join(f"{test} {n} of {seen[test]}" for test, n in longer.items() if n)
    return (
        f"reference completions are longer than max_new_tokens ({max_new_tokens}): {shares}; "
        f"answers may be cut, the longest takes {longest} (--max_new_tokens)"
    )


def _plain(completion: Any) -> str:
    """A completion as text, if need be from its chat messages."""
    if isinstance(completion, str):
        return completion
    return "\n".join(turn["content"] for turn in completion)
