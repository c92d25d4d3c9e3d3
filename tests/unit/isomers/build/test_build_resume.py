"""Builds that go on where they stopped, and with the same settings only."""

from __future__ import annotations

import json
from typing import Any

import pytest

from poise.isomers.build import JournalError, Limits, TeacherError

from .builds import Build, only
from .endpoint import Asked, Endpoint, Reply, retold, source_row


def test_a_finished_build_asks_nothing_again(build: Build) -> None:
    build.run(only(1, "law", "no"))
    first, asked = build.output.read_bytes(), len(build.endpoint.asked)
    build.output.unlink()
    build.run()
    assert build.output.read_bytes() == first and len(build.endpoint.asked) == asked


def test_an_endpoint_that_fails_for_good_stops_the_build_and_the_next_run_goes_on(
    build: Build,
) -> None:
    def tired(endpoint: Endpoint, asked: Asked) -> Reply | None:
        return Reply(status=503) if len(endpoint.asked) > 3 else None

    with pytest.raises(TeacherError, match="failed again after 1 retries, with HTTP 503"):
        build.run(tired, concurrency=1)
    assert len(build.lines(".journal")) == 1 + 3 and not build.output.exists()
    done = len(build.endpoint.asked)
    assert build.run(lambda endpoint, asked: None).sets == 3
    again = sorted(asked.pair for asked in build.endpoint.asked[done:])
    assert again == [(1, "medicine"), (2, "law"), (2, "medicine")]


def test_what_is_under_way_when_another_fails_is_kept(build: Build) -> None:
    def mood(endpoint: Endpoint, asked: Asked) -> Reply:
        if asked.pair[0] == 0:
            return Reply(status=404, delay=1.0)  # by then the others are under way
        return Reply(retold(asked), delay=1.5)

    with pytest.raises(TeacherError, match="HTTP 404"):
        build.run(mood, concurrency=3)
    assert [(r["id"], r["domain"]) for r in sorted(
        build.lines(".journal")[1:], key=lambda r: r["id"]
    )] == [("p1", "law"), ("p2", "law")]  # fmt: skip


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"domains": ("law", "science")}, "domains"),
        ({"attempts": 3}, "attempts"),
        ({"limits": Limits(slack=2)}, "slack"),
        ({"limits": Limits(max_overlap=0.5)}, "max_overlap"),
    ],
)
def test_a_journal_of_other_settings_is_refused(
    build: Build, change: dict[str, Any], name: str
) -> None:
    build.run()
    asked = len(build.endpoint.asked)
    with pytest.raises(JournalError, match=rf"begun with other settings \({name}"):
        build.run(**change)
    assert len(build.endpoint.asked) == asked


def test_a_journal_of_other_problems_is_refused(build: Build) -> None:
    build.run()
    build.path.write_text(json.dumps(source_row(5)) + "\n")
    with pytest.raises(JournalError, match=r"other settings \(problems"):
        build.run()
