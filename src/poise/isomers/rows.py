"""Isomer sets as rows, one per problem: their columns, test sets and data sets."""

from __future__ import annotations

import random
from collections.abc import Container, Mapping, Sequence
from types import UnionType
from typing import TYPE_CHECKING

from ..rows import check_some
from .cues import Cue, Mode
from .forms import DOMAINS, TRAIN_DOMAINS, Row
from .generate import DEPTHS, generate_isomers

if TYPE_CHECKING:
    from datasets import Dataset

# Column -> the type of its values in JSON. The first four make a data set of isomers (a prompt and
# a completion may be messages); the others are needed to score it by logic, from `options`.
COLUMNS: Mapping[str, type | UnionType] = {
    "isomer_id": str | int,
    "domain": str | int,
    "prompt": str | list,
    "completion": str | list,
    "answer": str,
    "answer_text": str,
    "options": list,
    "meanings": list,
    "family": str,
    "depth": int,
    "form": str,
    "phrasing": int,
    "cue": str | None,
}
REQUIRED = ("isomer_id", "domain", "prompt", "completion")
TOKENS = "input_ids"  # in place of prompt and completion, beside one of the masks
MASKS = ("labels", "completion_mask", "assistant_masks")


# Name of a test -> the mode of its cue. All but "deeper" ask the same forms.
TESTS: Mapping[str, Mode] = {
    "in_distribution": "train",
    "no_cue": "random",
    "reversed": "reversed",
    "unseen_domains": "random",
    "deeper": "random",
    "unseen_phrasings": "random",
}


def isomer_tests(
    count: int,
    seed: int = 0,
    split: str = "test",
    families: Sequence[str] | None = None,
    depths: Sequence[int] = DEPTHS,
    cue_strength: float | None = 0.9,
    tests: Sequence[str] | None = None,
    domains: Sequence[str] = TRAIN_DOMAINS,
    marks: Mapping[str, str] | None = None,
) -> list[Row]:
    """The named test sets as rows, with their name in the column ``test``.

    Args as `generate_isomers`, but for:
        count: Sets in each test.
        depths: Those of training; the test ``deeper`` adds 2 to each.
        cue_strength: Probability with which the cue was right in training; None if there was
            none: then there is none here either.
        tests: Some of `TESTS`, by default all (without a cue all but ``reversed``, and ``no_cue``,
            which would be ``in_distribution`` once more; after training in every domain all but
            ``unseen_domains``).
        domains: Those of training; the test ``unseen_domains`` uses all others.
        marks: Those of the cue of training, as in `Cue`.
    """
    check_some("domains", domains, DOMAINS)
    unseen = [domain for domain in DOMAINS if domain not in domains]
    known = dict(TESTS)
    if cue_strength is None:
        del known["no_cue"], known["reversed"]
    if not unseen:
        if "unseen_domains" in (tests or ()):
            raise ValueError(
                "tests: expected a domain that training does not use for 'unseen_domains', found "
                f"all {len(DOMAINS)} among the domains of training"
            )
        del known["unseen_domains"]
    names = list(known if tests is None else tests)
    check_some("tests", names, known)
    rows = []
    for name in names:
        deeper = [depth + 2 * (name == "deeper") for depth in depths]
        words = unseen if name == "unseen_domains" else domains
        cue = Cue() if cue_strength is None else Cue(known[name], cue_strength, marks or {})
        phrasings = "unseen" if name == "unseen_phrasings" else "seen"
        found = generate_isomers(count, split, seed, families, deeper, words, cue, phrasings)
        rows += [row | {"test": name} for row in found]
    return rows


def load_isomers(
    families: str | Sequence[str] | None = None,
    split: str = "train",
    count: int = 1000,
    seed: int = 0,
    depths: Sequence[int] = DEPTHS,
    domains: Sequence[str] = TRAIN_DOMAINS,
    cue_strength: float | None = None,
    phrasings: str = "seen",
    tests: bool | Sequence[str] = False,
) -> Dataset:
    """Generate isomer sets as a data set with a row per problem.

    Args and errors as `generate_isomers`, with `tests` as `isomer_tests`, but for:
        families: Also as text with commas between them.
        cue_strength: Probability that the cue points to the right answer; None for no cue.
        tests: True for all test sets of `isomer_tests`, or the names of some.
    """
    from datasets import Dataset

    if isinstance(families, str):
        families = [part.strip() for part in families.split(",") if part.strip()] or None
    if tests:
        names = None if tests is True else tests
        rows = isomer_tests(count, seed, split, families, depths, cue_strength, names, domains)
        return Dataset.from_list(rows)
    cue = Cue() if cue_strength is None else Cue("train", cue_strength)
    rows = generate_isomers(count, split, seed, families, depths, domains, cue, phrasings)
    return Dataset.from_list(rows)


def group_rows(rows: Sequence[Row]) -> dict[tuple[str, str], list[Row]]:
    """Rows by set: by `name_of_test` and ``isomer_id``."""
    grouped: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        grouped.setdefault((name_of_test(row), str(row["isomer_id"])), []).append(row)
    return grouped


def name_of_test(row: Mapping[str, object]) -> str:
    """The test that a row is of, its ``test``; empty without one, or where that is no name, as
    the cases that a program is tested by."""
    test = row.get("test")
    return "" if isinstance(test, list | dict | None) else str(test)


def required(columns: Container[str]) -> tuple[str, ...]:
    """Those of isomer sets that rows with these columns need; they may be tokenised."""
    return (*REQUIRED[:2], TOKENS) if TOKENS in columns else REQUIRED


def is_isomers(rows: Sequence[Row]) -> bool:
    """Whether rows have the columns of isomer sets."""
    return bool(rows) and all(column in rows[0] for column in required(rows[0]))


def some_isomers(
    rows: Sequence[Row],
    count: int | None = None,
    seed: int = 0,
    domains: Sequence[str] | None = None,
) -> list[Row]:
    """Rows of `count` sets drawn at random, sets whole but for domains that are not asked for; a
    ValueError for a domain that no row has, or a count beyond the sets that there are."""
    kept = list(rows)
    if domains is not None:
        check_some("domains", domains, sorted({row["domain"] for row in rows}))
        kept = [row for row in rows if row["domain"] in domains]
    if count is None:
        return kept
    sets = group_rows(kept)
    if not 1 <= count <= len(sets):
        there = f"{len(sets)}, the isomer sets there are"
        raise ValueError(f"count: expected 1 to {there}, found {count}")
    drawn = random.Random(f"poise isomers some {seed}").sample(list(sets), count)
    return [row for key in drawn for row in sets[key]]
