"""Rows of isomer sets: complete, the same after a file, the test sets, loading by name."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import datasets
import pytest

from poise.data import load_questions
from poise.isomers.cues import Cue
from poise.isomers.forms import DOMAINS, HELD_OUT_DOMAINS, TRAIN_DOMAINS, Row
from poise.isomers.generate import generate_isomers
from poise.isomers.rows import COLUMNS, TESTS, group_rows, isomer_tests
from poise.isomers.validate import validate_isomers
from poise.rows import check_dataset, read_jsonl, write_jsonl

COUNT = 32


@pytest.fixture(scope="module")
def tests() -> list[Row]:
    return isomer_tests(COUNT, seed=3)


def of(rows: list[Row], name: str) -> list[Row]:
    return [row for row in rows if row["test"] == name]


def test_rows_and_files_keep_everything(tmp_path: Path) -> None:
    rows = generate_isomers(8, domains=DOMAINS, cue=Cue("train", 0.5))
    assert len(rows) == 48 and all(tuple(row) == tuple(COLUMNS) for row in rows)
    path = tmp_path / "new" / "sets.jsonl"
    write_jsonl(path, rows)
    assert read_jsonl(path) == rows
    assert validate_isomers(path) == []
    files, cache = str(path), str(tmp_path / "cache")
    table = datasets.load_dataset("json", data_files=files, split="train", cache_dir=cache)
    assert table.to_list() == rows
    check_dataset(table)


def domains_of(test: str) -> tuple[str, ...]:
    return HELD_OUT_DOMAINS if test == "unseen_domains" else TRAIN_DOMAINS


def test_test_sets_are_whole_and_sound(tests: list[Row]) -> None:
    assert Counter(row["test"] for row in tests) == {
        name: COUNT * len(domains_of(name)) for name in TESTS
    }
    assert validate_isomers(tests) == []
    for (name, _), rows in group_rows(tests).items():
        assert tuple(row["domain"] for row in rows) == domains_of(name)


def test_each_test_differs_from_training_as_its_name_says(tests: list[Row]) -> None:
    assert all(row["cue"] != row["answer"] for row in of(tests, "reversed"))
    right = Counter(row["cue"] == row["answer"] for row in of(tests, "in_distribution"))
    assert right[True] > 0.8 * right.total()
    for name in ("no_cue", "unseen_domains", "deeper", "unseen_phrasings"):
        share = Counter(row["cue"] == row["answer"] for row in of(tests, name))
        assert 0.1 < share[True] / share.total() < 0.5
    assert {row["domain"] for row in of(tests, "unseen_domains")} == set(HELD_OUT_DOMAINS)
    assert {row["depth"] for row in of(tests, "deeper")} == {3, 4}
    assert {row["depth"] for row in of(tests, "no_cue")} == {1, 2}
    assert {row["phrasing"] for row in of(tests, "no_cue")}.isdisjoint(
        row["phrasing"] for row in of(tests, "unseen_phrasings")
    )


def test_tests_ask_the_same_forms(tests: list[Row]) -> None:
    """So a difference between two of them is a difference of the telling alone."""
    ids = {name: {row["isomer_id"] for row in of(tests, name)} for name in TESTS}
    deeper = ids.pop("deeper")
    assert all(found == ids["in_distribution"] for found in ids.values())
    assert not deeper & ids["in_distribution"]


def test_tests_share_nothing_with_training(tests: list[Row]) -> None:
    train = generate_isomers(200, seed=3, depths=(1, 2, 3, 4))
    assert validate_isomers(train, tests) == []
    assert not {r["isomer_id"] for r in train} & {r["isomer_id"] for r in tests}


def test_without_a_cue_in_training_the_tests_have_none() -> None:
    rows = isomer_tests(4, cue_strength=None)
    assert {row["test"] for row in rows} == set(TESTS) - {"no_cue", "reversed"}
    assert {row["cue"] for row in rows} == {None}
    with pytest.raises(ValueError, match="tests: expected some of in_distribution"):
        isomer_tests(4, cue_strength=None, tests=["reversed"])


def test_unseen_domains_are_those_that_training_left_out() -> None:
    rows = isomer_tests(2, domains=["mathematics", "logistics"])
    for test in TESTS:
        asked = {row["domain"] for row in rows if row["test"] == test}
        others = {"medicine", "law", "science", "sports"}
        assert asked == (others if test == "unseen_domains" else {"mathematics", "logistics"})
    loaded = load_questions("isomers", count=2, tests=True, domains=["law"]).to_list()
    asked_in = {(row["test"] == "unseen_domains", row["domain"] == "law") for row in loaded}
    assert asked_in == {(True, False), (False, True)}


def test_after_training_in_every_domain_none_is_unseen() -> None:
    rows = isomer_tests(2, domains=DOMAINS)
    assert {row["test"] for row in rows} == set(TESTS) - {"unseen_domains"}
    with pytest.raises(ValueError, match="a domain that training does not use"):
        isomer_tests(2, domains=DOMAINS, tests=["unseen_domains"])
    with pytest.raises(ValueError, match=r"domains: expected some of .*, found \['lwa'\]"):
        isomer_tests(2, domains=["lwa"], tests=["unseen_domains"])


def test_isomers_load_by_name() -> None:
    table = load_questions("isomers:ordering, rates", "test", count=6, seed=1, cue_strength=1.0)
    assert len(table) == 6 * len(TRAIN_DOMAINS)
    assert set(table["family"]) == {"ordering", "rates"}
    assert table["cue"] == table["answer"]
    check_dataset(table)
    deep = load_questions("isomers", count=8, depths=[3], domains=["law", "sports"])
    assert set(deep["depth"]) == {3} and set(deep["domain"]) == {"law", "sports"}
    asked = load_questions("isomers", "test", count=8, tests=["deeper"], cue_strength=0.9)
    assert set(asked["test"]) == {"deeper"}


def test_a_file_of_isomers_loads_in_whole_sets(tmp_path: Path) -> None:
    path = tmp_path / "sets.jsonl"
    rows = generate_isomers(10)
    write_jsonl(path, rows)
    assert load_questions(str(path)).to_list() == rows
    some = load_questions(str(path), count=3, seed=2).to_list()
    assert [len(members) for members in group_rows(some).values()] == [4, 4, 4]
    assert some == load_questions(str(path), count=3, seed=2).to_list()
    assert set(load_questions(str(path), domains=["law"])["domain"]) == {"law"}
    for count in (0, 11):
        with pytest.raises(ValueError, match=f"count: expected 1 to 10, .* found {count}"):
            load_questions(str(path), count=count)
    with pytest.raises(ValueError, match=r"domains: expected some of .*law"):
        load_questions(str(path), domains=["art"])


def test_isomers_of_the_hub_load_in_whole_sound_sets(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = generate_isomers(10)
    table = datasets.Dataset.from_list(rows)
    monkeypatch.setattr(datasets, "load_dataset", lambda *args, **options: table)
    assert load_questions("me/isomers").to_list() == rows
    some = load_questions("me/isomers", count=3, domains=["law"]).to_list()
    assert [len(members) for members in group_rows(some).values()] == [1, 1, 1]
    table = datasets.Dataset.from_list([rows[0] | {"completion": "Answer: perhaps"}, *rows[1:]])
    with pytest.raises(
        ValueError, match=r"me/isomers: expected sound .* found faults \(1\): row 1"
    ):
        load_questions("me/isomers")
    table = datasets.Dataset.from_list([{"prompt": "1 + 1 ="}])
    with pytest.raises(ValueError, match="me/isomers: expected isomer sets to take domains from"):
        load_questions("me/isomers", domains=["law"])


def test_a_set_may_lack_a_domain_but_must_be_sound(tmp_path: Path) -> None:
    path = tmp_path / "sets.jsonl"
    rows = generate_isomers(3)
    write_jsonl(path, rows[1:])
    assert len(load_questions(str(path))) == 11
    spoiled: list[dict[str, Any]] = [*rows[1:], rows[0] | {"completion": "Answer: perhaps"}]
    path.write_text("\n".join(map(json.dumps, spoiled)))
    with pytest.raises(
        ValueError, match=r"sets\.jsonl: .* found faults \(1\): row 12, set .*wrong end"
    ):
        load_questions(str(path))
