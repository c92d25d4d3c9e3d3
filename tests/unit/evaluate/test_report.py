"""The page: complete, self-contained, escaped, and honest about what is missing."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from poise.evaluate import plots, statistics
from poise.evaluate.records import QuestionRecord
from poise.evaluate.report import choose_samples, render_report, settings_of
from poise.evaluate.runs import read_run, read_runs

from .constructed import AFTER, BEFORE, question, write_evaluation, write_iga_run, write_run

VOID = {"meta", "img", "br", "link", "input", "hr"}


class Page(HTMLParser):
    """Checks nesting; collects tags, attributes and text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.links: list[str] = []
        self.text = ""
        self.feed(page)
        self.close()
        assert self.open == []
        self.text = re.sub(r"\s+", " ", self.text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [value or "" for name, value in attrs if name in ("src", "href", "action")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag
        self.text += " " * (tag in ("td", "th", "div", "p"))

    def handle_data(self, data: str) -> None:
        self.text += data


def page_of(*folders: Path) -> Page:
    return Page(render_report(read_runs(folders)))


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pictures have tests of their own, and intervals too."""
    monkeypatch.setattr(plots, "data_uri", lambda figure: "data:,drawn")
    monkeypatch.setattr(statistics, "RESAMPLES", 199)


def test_the_page_shows_accuracy_curves_settings_and_samples(tmp_path: Path) -> None:
    page = page_of(write_run(tmp_path / "r"))
    assert page.tags.count("img") == 10
    for text in ("before", "after", "12.5 [", "62.5 [", "+50.0 [", "biology", "physics"):
        assert text in page.text
    for text in ("config.learning_rate", "0.0001", "some/model", "seed 7", "poise 0.1.0"):
        assert text in page.text
    assert "3 of 4 samples right" in page.text
    # It needs nothing else, and has no part about isomers.
    assert not {"script", "link", "iframe", "object"} & set(page.tags)
    assert all(link.startswith("data:") for link in page.links)
    for text in ("By test", "Consistency", "Where the domains agree", "Mean mask", "projection"):
        assert text not in page.text


def test_what_a_model_says_cannot_become_markup(tmp_path: Path) -> None:
    nasty = "</pre><script>alert(1)</script>"
    evil = [question("<b>id</b>", "AB", prompt=nasty, completions=(nasty, nasty), domain="<i>")]
    page = page_of(write_run(tmp_path / "r", steps=0, before=evil, after=evil, run_name="<u>name"))
    assert not {"script", "b", "i", "u"} & set(page.tags)
    assert page.text.count(nasty) == 3
    assert "<u>name" in page.text


def test_several_runs_stand_side_by_side_and_their_differences_are_marked(tmp_path: Path) -> None:
    page = page_of(
        write_run(tmp_path / "mild", sensitivity=0.5),
        write_run(tmp_path / "strong", sensitivity=1.5, after=BEFORE),
    )
    differing = page.text.split("Settings that differ")[1].split("All settings")[0]
    assert "config.sensitivity 0.5 1.5" in differing
    assert "learning_rate" not in differing and "output_dir" not in differing
    assert "after, against mild -50.0 [" in page.text
    page = page_of(write_run(tmp_path / "a", steps=0), write_run(tmp_path / "b", steps=0))
    assert "The runs have the same settings." in page.text
    runs = read_runs([write_run(tmp_path / "c", steps=0, only_here=1), tmp_path / "b"])
    first, *others = settings_of(runs)
    assert first == {"name": "config.only_here", "values": ("1", "–"), "differs": True}
    assert not any(setting["differs"] for setting in others)


def test_what_one_run_does_not_know_is_no_difference(tmp_path: Path) -> None:
    known, bare = write_run(tmp_path / "known", steps=0), tmp_path / "bare"
    bare.mkdir()
    (bare / "metrics.jsonl").touch()
    assert (
        '<tr class="differs">' not in render_report(read_runs([known, bare])).split("Settings")[0]
    )
    other = write_run(tmp_path / "other", steps=0, seed=4)
    facts = render_report(read_runs([known, other])).split("Settings")[0]
    assert facts.count('<tr class="differs">') == 1


def test_runs_with_three_seeds_are_taken_together(tmp_path: Path) -> None:
    def write(*seeds: int) -> list[Path]:
        return [
            write_run(tmp_path / f"{len(seeds)}-{seed}", steps=0, seed=seed, sensitivity=1.0)
            for seed in seeds
        ]

    assert "t-interval" not in page_of(*write(1, 2)).text
    text = page_of(*write(1, 2, 3)).text
    assert "mean of 3 seeds after, against before +50.0 [+50.0, +50.0]" in text
    assert "t-interval over 3-1, 3-2, 3-3" in text


def test_a_bare_run_gives_a_page_that_says_what_is_missing(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").touch()
    page = page_of(tmp_path)
    assert "has no evaluation" in page.text
    assert "has no logged steps" in page.text
    assert "holds no config.yaml" in page.text
    assert "No completions were recorded" in page.text
    assert "img" not in page.tags
    half = page_of(write_run(tmp_path / "half", steps=0, before=None))
    for text in ("was evaluated only after training", "62.5 [", "not evaluated"):
        assert text in half.text
    assert "has no evaluation" in page_of(write_run(tmp_path / "e", 0, before=[], after=[])).text


def test_evaluations_that_are_not_alike_are_pointed_out(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "r", steps=0, after=None)
    write_evaluation(folder / "evaluation" / "after.jsonl", AFTER, seed=8, adapter="r", split="dev")
    with (folder / "evaluation" / "after.jsonl").open("a") as stream:
        stream.write('{"id"')
    page = page_of(folder)
    assert "before and after differ in split, seed," in page.text
    assert "after.jsonl:4: left out, the line is half-written" in page.text


def test_samples_show_the_largest_rise_and_the_largest_fall(tmp_path: Path) -> None:
    def answers(right: int) -> list[str]:
        return ["A"] * right + ["B"] * (10 - right)

    def records(rights: list[int]) -> list[QuestionRecord]:
        return [question(f"q{i}", answers(right)) for i, right in enumerate(rights)]

    run = read_run(
        write_run(tmp_path / "r", steps=0, before=records([5] * 11), after=records(list(range(11))))
    )
    chosen = [sample.question.id for sample in choose_samples(run)]
    assert chosen[:2] == ["q10", "q9"] and chosen[-2:] == ["q1", "q0"]
    assert set(chosen[2:4]) <= {"q4", "q5", "q6"}
    assert len(choose_samples(run, count=50)) == 11


def test_a_run_on_isomers_shows_every_test_and_its_own_curves(tmp_path: Path) -> None:
    text = render_report([read_run(write_iga_run(tmp_path / "r"))])
    page, titles = Page(text), re.findall('alt="([^"]*)"', text)
    tests = page.text.split("By test")[1].split("By domain")[0]
    for text in ("in distribution 4 25.0 [", "reversed 4 25.0 [", "75.0 [", "+50.0 ["):
        assert text in tests
    assert "mean out of distribution 8 25.0 [" in tests
    assert "(science)" in tests and "(science, reversed)" in tests
    assert "50.0 [" in tests  # three of four domains agree: half of the pairs
    assert "0.000 [0.000," in tests
    assert "Loss by domain over the steps of training" in titles
    assert "Mean mask over the steps of training" in titles
    assert titles[-1] == "Statistics of the gradient mask by layer"
    for text in ("Information signal", "Reward", "Step multiplier"):
        assert text not in page.text


def test_runs_on_isomers_stand_side_by_side_in_every_test(tmp_path: Path) -> None:
    first = write_iga_run(tmp_path / "iga", steps=0)
    text = page_of(first, write_iga_run(tmp_path / "plain", steps=0, right=2, tau=0.0)).text
    tests = text.split("By test")[1].split("By domain")[0]
    rows = re.findall("reversed (iga|plain) 4 25.0", tests)
    further = tests.split("Logical Consistency Score")[1]
    assert further.index("reversed iga") < further.index("reversed plain")
    assert rows == ["iga", "plain"]
    assert "After, against iga" in tests and "-25.0 [" in tests
    assert text.index("reversed plain") < text.index("deeper iga")


def test_isomers_over_three_seeds_are_taken_together(tmp_path: Path) -> None:
    runs = [write_iga_run(tmp_path / f"s{s}", steps=0, right=s, seed=s) for s in (2, 3, 4)]
    tests = page_of(*runs).text.split("Mean of 3 seeds")[1]
    assert "mean out of distribution 75.0 [" in tests
    assert "t-intervals over s2, s3, s4." in tests


def test_tests_before_training_alone_are_shown(tmp_path: Path) -> None:
    folder = write_iga_run(tmp_path / "r", steps=0)
    (folder / "evaluation" / "after.jsonl").unlink()
    (folder / "evaluation" / "before.representations.safetensors").unlink()
    tests = page_of(folder).text.split("By test")[1]
    assert "reversed 4 25.0 [" in tests and "–before: –" in tests
