"""A retelling is kept if the logic stays and the wording does not."""

from __future__ import annotations

from typing import Any

import pytest

from poise.isomers.build.checks import Limits, review
from poise.isomers.build.problems import SourceProblem
from poise.isomers.build.prompts import Retelling
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
    told = Retelling(prompt, reasoning, answer, more)
    siblings = {f"domain-{i}": text for i, text in enumerate(others)}
    return "; ".join(review(source, "law", told, siblings, Limits()))


def test_a_faithful_retelling_is_kept() -> None:
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


@pytest.mark.parametrize("settings", [(1.1, 1), (-0.1, 1), (float("nan"), 1), (0.3, -1)])
def test_limits_outside_their_range_are_refused(settings: tuple[float, int]) -> None:
    with pytest.raises(ValueError, match=r"(max_overlap|slack): expected"):
        Limits(*settings)
