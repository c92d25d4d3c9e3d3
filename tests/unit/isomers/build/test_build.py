"""Whole builds: what is kept, what is rejected and why; they go on where they stopped."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from poise.evaluate.scoring import scorer_of
from poise.isomers.build.prompts import TeacherError
from poise.isomers.build.teachers import EndpointTeacher
from poise.isomers.validate import validate_isomers

from .conftest import DOMAINS, Build, only
from .endpoint import Asked, Endpoint, Reply, rewritten, source_row


def test_faithful_versions_become_sets_that_datasets_loads(build: Build, tmp_path: Path) -> None:
    from datasets import load_dataset

    summary = build.run()
    assert (summary.sets, summary.problems) == (3, 3)
    assert summary.kept == {"law": 3, "medicine": 3} and not summary.rejected
    table = load_dataset(
        "json", data_files=str(build.output), split="train", cache_dir=str(tmp_path / "cache")
    )
    assert table.column_names == [
        "isomer_id", "domain", "prompt", "completion", "answer", "answer_text",
    ]  # fmt: skip
    assert [(r["isomer_id"], r["domain"]) for r in table] == [
        (f"p{n}", domain) for n in range(3) for domain in DOMAINS
    ]
    for row in table:
        reasoning = f" {row['completion'].split(chr(10))[0].strip()}"
        assert row["completion"] == f"{reasoning}\nAnswer: {row['answer_text']}"
        assert row["answer"] == str(source_row(int(row["isomer_id"][1:]))["answer"])
        assert scorer_of([row])(row, row["completion"]) == (row["answer"], 1.0)
        assert scorer_of([row])(row, f"{reasoning}\nAnswer: 7") == ("7", 0.0)
    assert build.lines(".rejects") == []
    assert validate_isomers(build.output) == []


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        ("I would rather not.", "one complete JSON object"),
        (lambda asked: rewritten(asked, answer="7"), "expected the answer '28'"),
        (lambda asked: rewritten(asked).replace("Every lawist has 4", "Every lawist has 6"), "4"),
        (lambda asked: rewritten(asked).replace("If", "When"), "'if'"),
        (lambda asked: rewritten(asked, reasoning="Clear."), "never names the answer"),
    ],
)
def test_a_bad_version_is_rejected_with_the_reason_and_its_set_left_out(
    build: Build, reply: Any, reason: str
) -> None:
    summary = build.run(only(1, "law", reply))
    assert summary.sets == 2 and summary.rejected == {"law": 1}
    assert {row["isomer_id"] for row in build.lines()} == {"p0", "p2"}
    rejects = build.rejects()
    assert reason in rejects["p1", "law"] and len(rejects) == 2
    assert "survived in 1 domains, 2 are asked for" in rejects["p1", "medicine"]
    assert build.lines(".rejects")[0]["attempts"] == 2 and build.lines(".rejects")[0]["reply"]


def test_the_teacher_may_mend_what_it_is_told_of(build: Build) -> None:
    def mood(endpoint: Endpoint, asked: Asked) -> Reply | None:
        return None if asked.is_retry else Reply(rewritten(asked, answer="7"))

    assert build.run(mood).sets == 3
    assert len(build.endpoint.asked) == 12
    told = [asked.body["messages"][-1]["content"] for asked in build.endpoint.asked]
    assert sum("expected the answer" in text for text in told) == 6


def test_two_domains_in_the_same_words_are_not_kept(build: Build) -> None:
    def mood(endpoint: Endpoint, asked: Asked) -> Reply:
        return Reply(rewritten(asked).replace("medicine", "law"))

    assert build.run(mood).rejected == {"medicine": 3}
    assert "with law, at most 30%" in build.rejects()["p0", "medicine"]
    assert build.run(mood, min_domains=1).sets == 3


def test_what_is_kept_does_not_depend_on_how_many_are_under_way(build: Build) -> None:
    def mood(endpoint: Endpoint, asked: Asked) -> Reply:
        text = rewritten(asked).replace("medicine", "law" if asked.each == 4 else "ward")
        return Reply(text, delay=0.05)

    build.run(mood, concurrency=1)
    one = build.output.read_bytes()
    build.output.with_name("isomers.journal.jsonl").unlink()
    assert build.endpoint.most_at_once == 1
    build.run(mood, concurrency=2)
    assert build.output.read_bytes() == one and build.endpoint.most_at_once == 2


def test_a_problem_told_in_a_wanted_domain_is_taken_as_it_is(build: Build) -> None:
    row = {**source_row(0), "domain": "medicine", "solution": "3 times 5 is 15.\n#### 15"}
    build.path.write_text(json.dumps(row) + "\n")
    assert build.run().sets == 1
    assert [asked.domain for asked in build.endpoint.asked] == ["law"]
    _, taken = build.lines()
    assert (taken["prompt"], taken["completion"]) == (
        row["question"],
        " 3 times 5 is 15.\nAnswer: 15",
    )


def test_a_refused_problem_is_a_reject(build: Build) -> None:
    def mood(endpoint: Endpoint, asked: Asked) -> Reply | None:
        return Reply(status=400, raw="filtered") if asked.pair[0] == 0 else None

    assert build.run(mood, concurrency=1).sets == 2
    assert "HTTP 400 (filtered)" in build.rejects()["p0", "law"]


def test_an_endpoint_that_refuses_everything_stops_the_build_and_spoils_nothing(
    build: Build,
) -> None:
    with pytest.raises(TeacherError, match=r"every request is refused.*HTTP 400 \(no such size\)"):
        build.run(lambda endpoint, asked: Reply(status=400, raw="no such size"), concurrency=1)
    assert len(build.lines(".journal")) == 1
    assert build.run(lambda endpoint, asked: None).sets == 3


def test_an_endpoint_that_fails_for_good_stops_the_build_and_the_next_run_goes_on(
    build: Build,
) -> None:
    def tired(endpoint: Endpoint, asked: Asked) -> Reply | None:
        return Reply(status=503) if len(endpoint.asked) > 3 else None

    with pytest.raises(TeacherError, match="failed, with up to 1 retries: HTTP 503"):
        build.run(tired, concurrency=1)
    assert len(build.lines(".journal")) == 1 + 3 and not build.output.exists()
    done = len(build.endpoint.asked)
    assert build.run(lambda endpoint, asked: None).sets == 3
    again = sorted(asked.pair for asked in build.endpoint.asked[done:])
    assert again == [(1, "medicine"), (2, "law"), (2, "medicine")]


def test_what_is_under_way_when_another_fails_is_kept(build: Build) -> None:
    def mood(endpoint: Endpoint, asked: Asked) -> Reply:
        if asked.pair[0] == 0:
            return Reply(status=404, delay=0.5)  # by then the others are under way
        return Reply(rewritten(asked), delay=0.8)

    with pytest.raises(TeacherError, match="HTTP 404"):
        build.run(mood, concurrency=3)
    assert [(r["id"], r["domain"]) for r in sorted(
        build.lines(".journal")[1:], key=lambda r: r["id"]
    )] == [("p1", "law"), ("p2", "law")]  # fmt: skip


@pytest.mark.parametrize("concurrency", [1, 3])
def test_what_ends_a_thread_ends_the_build(
    build: Build, concurrency: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not by an Exception, as a panic in a tokenizer; the pool alone would wait for ever."""

    def end(*_: Any) -> str:
        raise SystemExit("ended")

    monkeypatch.setattr(EndpointTeacher, "complete", end)
    with pytest.raises(SystemExit, match="ended"):
        build.run(concurrency=concurrency)


def test_a_journal_of_other_settings_or_problems_is_refused(build: Build) -> None:
    build.run()
    asked = len(build.endpoint.asked)
    changes: dict[str, Any] = {
        "domains": ("law", "science"), "attempts": 3, "slack": 2, "max_overlap": 0.5,
    }  # fmt: skip
    for name, value in changes.items():
        with pytest.raises(ValueError, match=rf"begun with other settings \({name}"):
            build.run(**{name: value})
    rows = [source_row(number) for number in range(3)]
    for change in ({"answer": 16}, {"question": "How?"}, {"id": "b"}, {"domain": "law"},
                   {"solution": "so"}):  # fmt: skip
        changed = [{**rows[0], **change}, *rows[1:]]
        build.path.write_text("".join(json.dumps(row) + "\n" for row in changed))
        with pytest.raises(ValueError, match=r"other settings \(problems"):
            build.run()
    assert len(build.endpoint.asked) == asked
