"""The signature tells a faithful retelling from one that bends the logic."""

from __future__ import annotations

import pytest

from poise.isomers.build.signature import (
    content_words,
    overlap,
    quantity_faults,
    relation_faults,
    relations,
)

SOURCE = "Ann packs 12 pears into each of 8 boxes. If half of them rot, how many are good?"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("no more than 5, at least 3, fewer than 4", {"at most": 1, "at least": 1, "less": 1}),
        ("Bob is taller than Ann and younger than Cy", {"more": 1, "less": 1}),
        ("rather than the other than that", {}),
        ("If all wugs are daxes, no dax isn't a fep", {"if": 1, "all": 1, "not": 2}),
        ("every day, each box, per box", {"all": 3}),
        ("earlier than noon, later than six", {"before": 1, "after": 1}),
        ("as many as the same, equally", {"equal": 3}),
        ("It doesn’t rain or it never rains", {"not": 2, "or": 1}),
        ("information, notable, morel, ifs", {}),
    ],
)
def test_relation_words_are_counted_by_kind(text: str, expected: dict[str, int]) -> None:
    assert relations(text) == expected


@pytest.mark.parametrize(
    ("told", "fault"),
    [
        ("A nurse fills 12 syringes on each of 8 trays. If half are used, how many stay?", None),
        ("Twelve deeds in each of eight files; if 50% are void, how many hold? The 8 files.", None),
        ("12 syringes on each of 9 trays. If half are used, how many stay?", "8 of the source"),
        ("12 syringes on each of 8 trays. If half are used, how many of 48?", "48 is not"),
        ("12 syringes on each of 8 trays. If some are used, how many stay?", "1/2 of the source"),
    ],
)
def test_quantities_may_be_repeated_but_not_lost_or_added(told: str, fault: str | None) -> None:
    found = quantity_faults(SOURCE, told)
    assert (found == []) if fault is None else (fault in " ".join(found))


def test_a_quantity_that_the_source_states_twice_must_be_stated_twice() -> None:
    source = "5 pears and 5 plums"
    assert quantity_faults(source, "5 writs and 5 deeds") == []
    assert quantity_faults(source, "5 writs and deeds") != []


@pytest.mark.parametrize(
    ("source", "told", "kind"),
    [
        ("3 more than Bob", "3 fewer than the clerk", "'more'"),
        ("3 more than Bob", "3 fewer than the clerk", "'less'"),
        ("if it rains, no bus runs", "it rains, no bus runs", "'if'"),
        ("if it rains, no bus runs", "if it rains, the bus runs", "'not'"),
        ("all cats purr", "some cats purr", "'some'"),
        ("eat before you run", "eat after you run", "'after'"),
        ("at least 5", "more than 5", "'at least'"),
    ],
)
def test_a_relation_that_is_lost_or_new_is_a_fault(source: str, told: str, kind: str) -> None:
    found = relation_faults(source, told)
    assert any(kind in fault for fault in found)


def test_counts_of_a_relation_may_differ_by_the_slack() -> None:
    once, twice = "if it rains", "if it rains and if it pours"
    assert relation_faults(once, twice, slack=1) == []
    assert relation_faults(once, twice, slack=0) != []


def test_only_words_of_the_story_count_as_wording() -> None:
    text = "A) The nurses have 12 more syringes than each of the two doctors. Yes?"
    assert content_words(text) == {"nurse", "syringe", "doctor"}


def test_overlap_is_the_jaccard_index() -> None:
    assert overlap("a nurse fills syringes", "the nurses fills vials") == pytest.approx(2 / 4)
    assert overlap("a nurse", "a clerk") == 0.0
    assert overlap("a nurse", "The nurses!") == 1.0
    assert overlap("12", "15") == 1.0
