"""Isomer sets as a data set, generated or from a user's file; sets stay whole."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import TYPE_CHECKING

from .cues import Cue
from .generate import DEPTHS, generate_isomers
from .model import TRAIN_DOMAINS
from .rows import Row, group_rows, isomer_tests, to_rows
from .validate import validate_isomers

if TYPE_CHECKING:
    from datasets import Dataset

# A set may lack a domain: the mean over domains is over those that are there.
TOLERATED = frozenset({"missing domain"})
_SHOWN = 3


def load_isomers(
    families: Sequence[str] | None = None,
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

    Args:
        families: Some of the families, by default all.
        split: ``train``, ``validation`` or ``test``.
        count: How many sets; with `tests`, in each test.
        seed: Any integer.
        depths: Reasoning steps, each as often.
        domains: In whose words; with `tests` those of training.
        cue_strength: Probability that the surface cue points to the right answer; None for no
            cue.
        phrasings: ``seen`` or ``unseen``; `tests` have their own.
        tests: True for all test sets of `isomer_tests`, or the names of some.

    Raises:
        ValueError: as `generate_isomers` and `isomer_tests`.
    """
    from datasets import Dataset

    if tests:
        names = None if tests is True else tests
        rows = isomer_tests(count, seed, split, families, depths, cue_strength, names, domains)
        return Dataset.from_list(rows)
    cue = Cue() if cue_strength is None else Cue("train", cue_strength)
    sets = generate_isomers(count, split, seed, families, depths, domains, cue, phrasings)
    return Dataset.from_list(to_rows(sets))


def check_isomers(rows: Sequence[Row], name: str = "isomers") -> None:
    """Check rows before training; a set may lack a domain.

    Raises:
        ValueError: they have faults; the first are named, with the way to see all.
    """
    faults = [fault for fault in validate_isomers(rows) if fault.kind not in TOLERATED]
    if faults:
        shown = "; ".join(str(fault).replace("rows, line", "row", 1) for fault in faults[:_SHOWN])
        raise ValueError(
            f"{name}: expected sound isomer sets, found faults ({len(faults)}): {shown}; "
            "`poise isomers validate FILE` lists them all"
        )


def some_isomers(
    rows: Sequence[Row],
    count: int | None = None,
    seed: int = 0,
    domains: Sequence[str] | None = None,
) -> list[Row]:
    """Rows of `count` sets drawn at random, sets whole but for domains left out.

    Raises:
        ValueError: a domain that no row has, or a count beyond the sets that there are.
    """
    known = sorted({row["domain"] for row in rows})
    if domains is not None and (not domains or not set(domains) <= set(known)):
        raise ValueError(f"domains: expected some of {known}, found {list(domains)!r}")
    kept = [row for row in rows if domains is None or row["domain"] in domains]
    sets = group_rows(kept)
    if count is None:
        return kept
    if not 1 <= count <= len(sets):
        raise ValueError(
            f"count: expected 1 to {len(sets)}, the isomer sets there are, found {count}"
        )
    drawn = random.Random(f"poise isomers some {seed}").sample(list(sets), count)
    return [row for key in drawn for row in sets[key]]
