"""A version is kept if the logic stays and the wording does not."""

from __future__ import annotations

from typing import Any

import pytest

from poise.isomers.build.checks import (
    answer_fault,
    content_words,
    overlap,
    quantity_faults,
    relation_faults,
    relations,
    review,
)
from poise.isomers.build.problems import SourceProblem
from poise.isomers.build.prompts import Version
from poise.isomers.meanings import read_answer

ASKED = "Ann packs 12 pears into each of 8 boxes. If half of them rot, how many are good?"
TOLD = "A clerk stamps 12 deeds on each of 8 days. If half are void, how many hold?"
NURSE = "Each of 8 wards gets 12 syringes from a nurse. If half break, how many work?"


def problem(prompt: str = ASKED, answer: str = "48", **more: Any) -> SourceProblem:
    read = read_answer(prompt, answer)
    assert read is not None
    return SourceProblem("p", prompt, read, **more)


def faults(
    source: SourceProblem, prompt: str, reasoning: str, answer: str, *others: str, **more: Any
) -> str:
    told = Version(prompt, reasoning, answer, more)
    siblings = {f"domain-{i}": text for i, text in enumerate(others)}
    return "; ".join(review(source, "law", told, siblings, 0.3, 1))


def test_a_faithful_version_is_kept() -> None:
    assert faults(problem(), TOLD, "12 times 8 is 96, half of it 48.", "48 deeds", NURSE) == ""


def test_every_fault_is_named_at_once() -> None:
    found = faults(problem(), TOLD.replace("8", "9").replace("If", "When"), "54.", "54", TOLD)
    for part in ("the answer '48'", "quantity 8 ", "quantity 9 ", "kind 'if'", "with domain-0"):
        assert part in found


def test_a_prompt_that_announces_the_answer_is_refused() -> None:
    told = f"{TOLD}\nAnswer:"
    assert "without 'Answer:'" in faults(problem(), told, "12 times 8, half of it: 48.", "48")


def test_reasoning_that_does_not_reach_the_answer_is_refused() -> None:
    assert "never names the answer" in faults(problem(), TOLD, "That is simple.", "48")


def test_reasoning_reaches_names_options_and_letters() -> None:
    name = problem("Ann leads Bo. Who leads?", "Ann")
    told, names = "Tort beats writ. What wins?", {"Ann": "Tort"}
    assert faults(name, told, "It is Tort.", "Tort", **names) == ""
    assert "never names" in faults(name, told, "It is clear.", "Tort", **names)
    choice = problem("Which?\nA) iron\nB) neon", "A")
    told = "Which?\nA) a writ\nB) a tort"
    assert faults(choice, told, "It is a writ.", "a writ") == ""
    assert faults(choice, told, "So A holds.", "A") == ""
    assert "never names" in faults(choice, told, "It is a guess.", "A")


def test_a_truth_word_need_not_be_said_in_the_reasoning() -> None:
    assert faults(problem("Is Ann tall?", "yes"), "Is the writ void?", "So it is.", "yes") == ""


def test_wording_of_another_domain_is_refused() -> None:
    copied = NURSE.replace("nurse", "clerk")
    assert "of its content words with domain-0" in faults(problem(), copied, "48.", "48", NURSE)


def test_a_copy_of_the_source_is_refused_where_the_source_is_of_another_domain() -> None:
    copy = (ASKED, "It is 48.", "48")
    assert "the source (medicine)" in faults(problem(domain="medicine"), *copy)
    assert faults(problem(domain="law"), *copy) == ""
    assert faults(problem(), *copy) == ""


LETTERED = "Which is a gas?\nA) iron\nB) neon\nC) gold"


def fault(asked: str, answer: str, prompt: str, new: str, **names: str) -> str | None:
    source = read_answer(asked, answer)
    assert source is not None
    return answer_fault(source, asked, Version(prompt, "", new, names))


def test_an_option_survives_in_its_place_only() -> None:
    told = "Which is a writ?\nA) oak\nB) summons\nC) elm"
    assert fault(LETTERED, "B", told, "summons") is None
    assert fault(LETTERED, "B", told, "B") is None
    assert "option 2" in str(fault(LETTERED, "B", told, "elm"))
    assert "3 options" in str(fault(LETTERED, "B", "Which?\nA) oak\nB) summons", "B"))
    assert "found none" in str(fault(LETTERED, "B", "Which is a writ?", "summons"))


def test_a_number_survives_in_any_form() -> None:
    assert fault("How many?", "0.5", "How many?", "1/2 a deed") is None
    assert "'1/2'" in str(fault("How many?", "0.5", "How many?", "2"))
    assert fault("How many?", "17", "How many?", "seventeen") is None
    assert fault("How many?", "17", "How many?", "no idea") is not None


def test_a_truth_word_survives_as_itself() -> None:
    assert fault("Is it?", "yes", "Is it?", "True") is None
    assert fault("Is it?", "yes", "Is it?", "no") is not None


def test_a_name_survives_if_the_version_says_who_is_who() -> None:
    asked, told = "Ann leads Bo. Who leads?", "Tort beats writ. What wins?"
    assert fault(asked, "Ann", told, "tort", Ann="Tort", Bo="writ") is None
    assert "to map 'Ann'" in str(fault(asked, "Ann", told, "writ", Ann="Tort", Bo="writ"))
    assert "to map 'Ann'" in str(fault(asked, "Ann", told, "Tort"))
    assert "different" in str(fault(asked, "Ann", told, "Tort", Ann="Tort", Bo="tort"))
    assert "'Cy'" in str(fault(asked, "Ann", told, "Tort", Ann="Tort", Cy="writ"))
    assert "'deed'" in str(fault(asked, "Ann", told, "deed", Ann="deed"))


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
    found = quantity_faults(ASKED, told)
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
