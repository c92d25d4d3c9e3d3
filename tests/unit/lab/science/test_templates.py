"""Every template: right, distinct, well written, and as many as promised."""

import re
from functools import cache
from random import Random

import pytest

from lab.science import DOMAINS, TEMPLATES, Template, facts, generate, templates
from lab.science.generate import _assemble, _draw
from lab.science.registry import COMPUTED_LEVELS
from poise.question import LETTERS, Question
from tests.unit.lab.science.oracles import ORACLES, TEXT_ORACLES, numbers

# Level 0 computes nothing; test_recall.py looks at it.
COMPUTED = [t for t in TEMPLATES.values() if t.level in COMPUTED_LEVELS]
EACH = pytest.mark.parametrize("template", COMPUTED, ids=lambda t: f"{t.domain}-{t.name}")


@cache
def questions(template: Template) -> tuple[Question, ...]:
    rng = Random("test")
    drafts = _draw(template, 200, "train", rng)
    return tuple(_assemble(template, draft, rng.choice(LETTERS), rng) for draft in drafts)


@pytest.mark.parametrize("domain", DOMAINS)
def test_every_domain_has_ten_templates_and_some_in_each_level(domain):
    by_level = {level: len(templates(domain, level)) for level in COMPUTED_LEVELS}
    assert sum(by_level.values()) >= 10
    assert by_level[1] >= 3 and min(by_level.values()) >= 2


def test_every_template_has_a_second_computation():
    assert {t.name for t in COMPUTED} == set(ORACLES) | set(TEXT_ORACLES)


@EACH
def test_the_marked_option_is_what_a_second_computation_gives(template):
    for question in questions(template):
        if template.name in TEXT_ORACLES:
            assert TEXT_ORACLES[template.name](question.stem, question.options) == (
                question.right_option
            )
            continue
        exact = ORACLES[template.name](numbers(question.stem), question.stem)
        written = {text: numbers(text)[0] for text in question.options}
        # Three significant digits, two decimal places or a whole number: within half a unit.
        tolerance = max(abs(exact) * 5.001e-3, 0.0051 if "pH" in question.stem else 0)
        assert abs(written[question.right_option] - exact) <= tolerance, question
        nearest = min(written, key=lambda text: abs(written[text] - exact))
        assert nearest == question.right_option, question


@EACH
def test_a_template_yields_two_hundred_different_valid_questions(template):
    made = questions(template)
    assert len({(q.stem, frozenset(q.options)) for q in made}) == 200
    assert len({q.id for q in made}) == 200
    for question in made:
        assert question.solution.splitlines()[-1] == f"Answer: {question.answer}"
        assert question.right_option in question.solution
        assert question.stem[0].isupper() or question.stem[0].isdigit()
        assert re.search(r"\?($| \()|\.$", question.stem), question.stem
        text = " ".join([question.stem, *question.options, question.solution])
        assert not re.search(
            r"  (?!\n)|\{|\}|None|\.\.|Fraction|\ba [aeio]|\ba (8|11\b|18\b)|\d+\.\d{9}", text
        ), text


@EACH
def test_numbers_of_a_question_share_one_form(template):
    if template.name in TEXT_ORACLES:
        return
    for question in questions(template):
        parts = [re.fullmatch(r"([\d.]+)( × 10\^-?\d+)?(.*)", text) for text in question.options]
        assert all(parts), question.options
        assert len({(part[3], part[2] is None) for part in parts}) == 1, question.options
        if template.name in ("ph_of_acid", "ph_after_mixing"):
            assert all(re.fullmatch(r"\d+\.\d\d", part[1]) for part in parts)
        elif "." in "".join(part[1] for part in parts):
            digits = {len(part[1].replace(".", "").lstrip("0")) for part in parts if "." in part[1]}
            assert digits == {3}, question.options


def test_level_one_is_short():
    for question in generate(levels=[1], count=400):
        assert len(question.stem) <= 130
        assert all(len(text) <= 12 for text in question.options)


def test_facts_have_no_ties_and_tell_nothing_by_their_length():
    tables = [facts.ATOMIC_NUMBERS, facts.BOILING_POINTS]
    tables += [{metal: row[i] for metal, row in facts.METALS.items()} for i in (0, 1)]
    for table in tables:
        assert len(set(table.values())) == len(table)
        assert len({len(name) for name in table}) == 1
