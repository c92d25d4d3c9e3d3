"""A running endpoint, and a build that asks it again and again."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from poise.isomers.build import build as builder
from poise.isomers.build.problems import read_problems
from poise.isomers.build.teachers import EndpointTeacher

from .endpoint import KEY, Asked, Endpoint, Mood, Reply, running_endpoint, source_row

DOMAINS = ("law", "medicine")


class Build:
    """Builds three problems in two domains, again and again."""

    def __init__(self, endpoint: Endpoint, problems: Path) -> None:
        self.endpoint, self.path = endpoint, problems
        self.output = problems.with_name("isomers.jsonl")

    def run(self, mood: Mood | None = None, concurrency: int = 2, **plan: Any) -> builder.Summary:
        if mood is not None:
            self.endpoint.mood = mood
        wanted = builder.Plan(**{"domains": list(DOMAINS), "attempts": 2, **plan})
        problems = read_problems(self.path)
        teacher = EndpointTeacher("m", self.endpoint.url, KEY, retries=1, concurrency=concurrency)
        return builder.build(problems, wanted, teacher, self.output)

    def lines(self, what: str = "") -> list[dict[str, Any]]:
        path = self.output.with_name(f"isomers{what}.jsonl")
        return [json.loads(line) for line in path.read_text().splitlines()]

    def rejects(self) -> dict[tuple[str, str], str]:
        return {(r["isomer_id"], r["domain"]): r["reason"] for r in self.lines(".rejects")}


def only(number: int, domain: str, reply: Any) -> Mood:
    """A bad reply whenever this pair is asked for."""

    def mood(endpoint: Endpoint, asked: Asked) -> Reply | None:
        text = reply(asked) if callable(reply) else reply
        return Reply(text) if asked.pair == (number, domain) else None

    return mood


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    with running_endpoint() as found:
        yield found


@pytest.fixture
def problems_path(tmp_path: Path) -> Path:
    """Three problems."""
    path = tmp_path / "problems.jsonl"
    path.write_text("".join(json.dumps(source_row(n)) + "\n" for n in range(3)))
    return path


@pytest.fixture
def build(endpoint: Endpoint, problems_path: Path) -> Build:
    return Build(endpoint, problems_path)
