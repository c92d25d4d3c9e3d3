"""The talk with a teacher: what it reads, how its reply is read, and what goes wrong."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from .problems import SourceProblem, without_answer

Messages = list[dict[str, str]]

SYSTEM = """\
You retell reasoning problems in another subject domain. The story changes, the logic does not.

Rules:
- Tell a new story that belongs to the domain: its own people, objects, actions and vocabulary. \
Do not reuse the nouns, names and verbs of the source.
- Keep every quantity exactly, and add none: no other number, no unit conversion.
- Keep every word of relation: more, less, equal, at least, at most, if, unless, only, all, each, \
some, not, or, before, after. The same ones, in the same direction, about as often.
- Keep the order of the facts, the question, and the number, form and order of the options.
- Do not state the answer in the prompt.

Reply with one JSON object and nothing else:
{"prompt": "the retold problem, with its options if the source has options",
 "reasoning": "the steps of the solution in the words of the domain, up to the answer",
 "answer": "the final answer alone"}"""

NAMES_RULE = """
The answer is a name. Add to the object: "names": {"name in the source": "name in your story"} \
for all names that could be the answer, the right one among them."""
# A reply of a model gone astray would fill the context of the next attempt.
_MOST_REPEATED = 4000
_THOUGHT = re.compile(r"<think(?:ing)?>.*?</think(?:ing)?>", re.DOTALL | re.IGNORECASE)


class TeacherError(RuntimeError):
    """The teacher cannot be asked; the message says why and what to do."""


class RefusedRequest(TeacherError):
    """The teacher refuses this one conversation, and would again."""


class MalformedReply(ValueError):
    """The teacher's reply is not the object that was asked for; the message tells it why."""


@dataclass(frozen=True)
class Version:
    """A problem as the teacher rewrote it, with the steps of its solution and the answer.

    Where the answer is a name, `names` maps those of the source to those of the version.
    """

    prompt: str
    reasoning: str
    answer: str
    names: Mapping[str, str] = field(default_factory=dict)


def make_messages(problem: SourceProblem, domain: str, others: Iterable[str] = ()) -> Messages:
    """The conversation that asks for one version. It shows `others`, prompts of the same problem in
    other domains, whose wording is not to be shared."""
    parts = [f"Domain: {domain}", f"Source problem:\n{problem.prompt}"]
    if problem.solution:
        parts.append(f"Source solution:\n{problem.solution}")
    parts.append(f"Source answer: {problem.answer.text}")
    if told := "\n".join(f"- {' '.join(text.split())}" for text in others):
        parts.append(f"Already told, do not share their wording:\n{told}")
    system = SYSTEM + (NAMES_RULE if problem.answer.kind == "name" else "")
    return [
        {"role": "system", "content": system},
        {"role": "user", "content": "\n\n".join(parts)},
    ]


def ask_again(reply: str, reason: str) -> Messages:
    """What is added to the conversation after a reply that cannot be used."""
    again = f"That cannot be used: {reason}. Fix it and reply with the object alone."
    return [
        {"role": "assistant", "content": reply[:_MOST_REPEATED] or "(nothing)"},
        {"role": "user", "content": again},
    ]


def parse_reply(text: str) -> Version:
    """Read the teacher's reply.

    Thoughts in ``<think>`` tags, code fences and words around the object are passed over.

    Raises:
        MalformedReply: there is no JSON object with the fields, or one is empty or no text.
    """
    row = _find_object(_THOUGHT.sub("", text))
    names = row.get("names") or {}
    if not isinstance(names, dict) or not all(isinstance(name, str) for name in names.values()):
        raise MalformedReply(f"expected an object of names in 'names', found {names!r:.200}")
    reasoning = without_answer(_field(row, "reasoning"))
    if not reasoning:
        raise MalformedReply("expected steps in 'reasoning', found the answer alone")
    answer = re.sub(r"(?i)^answer:\s*", "", _field(row, "answer"))
    return Version(_field(row, "prompt"), reasoning, " ".join(answer.split()), names)


def _find_object(text: str) -> dict[str, Any]:
    # Raw line breaks within strings are common and harmless.
    decoder = json.JSONDecoder(strict=False)
    for brace in re.finditer("{", text):
        try:
            row: dict[str, Any] = decoder.raw_decode(text, brace.start())[0]
        except (ValueError, RecursionError):
            continue
        if "prompt" in row:
            return row
    raise MalformedReply(
        'expected one complete JSON object with "prompt", "reasoning" and "answer", found none'
    )


def _field(row: dict[str, Any], name: str) -> str:
    value = row.get(name)
    if isinstance(value, bool) or not isinstance(value, str | int | float) or value == "":
        raise MalformedReply(f"expected text in {name!r}, found {value!r:.200}")
    text = whole(str(value)).strip()
    if not text:
        raise MalformedReply(f"expected text in {name!r}, found blanks")
    return text


def whole(text: str) -> str:
    """Text that any file can hold: half of a surrogate pair becomes a question mark."""
    return text.encode("utf-8", "replace").decode()
