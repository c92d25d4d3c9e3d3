from __future__ import annotations

from typing import Any

import pytest
from datasets import Dataset

from poise.iga.batches import IsomerCollator, IsomerSets

ROWS = [
    ("a", "law", [1, 2]),
    ("b", "sport", [3]),
    ("a", "sport", [4]),
    ("b", "law", [5, 6, 7]),
    ("c", "art", [8]),  # alone
]


@pytest.fixture
def sets() -> IsomerSets:
    rows = [
        {"isomer_id": i, "domain": d, "input_ids": ids, "labels": [-100, *ids[1:]], "note": "x"}
        for i, d, ids in ROWS
    ]
    return IsomerSets(Dataset.from_list(rows), ("law", "sport", "art"))


def test_an_item_is_a_whole_set_by_domain(sets: IsomerSets) -> None:
    assert (len(sets), sets.sequences) == (3, 5)
    found = [[(row["domain"], row["input_ids"]) for row in sets[i]] for i in range(3)]
    assert found == [[(0, [1, 2]), (1, [4])], [(0, [5, 6, 7]), (1, [3])], [(2, [8])]]
    assert set(sets[0][0]) == {"domain", "input_ids", "labels"}


def test_a_batch_is_flat_and_says_the_domain_of_each_row(sets: IsomerSets) -> None:
    seen: list[Any] = []

    def host(rows: list[dict[str, Any]]) -> dict[str, Any]:
        seen.extend(rows)
        return {"input_ids": [row["input_ids"] for row in rows]}

    batch = IsomerCollator(host)([sets[1], sets[2], sets[0]])
    # By domain, so that each one's rows are neighbours; within it in the order of the sets.
    assert batch["input_ids"] == [[5, 6, 7], [1, 2], [3], [4], [8]]
    assert batch["domain"].tolist() == [0, 0, 1, 1, 2]
    assert all(set(row) == {"input_ids", "labels"} for row in seen)


def test_single_rows_are_the_hosts() -> None:
    rows = [{"input_ids": [1]}, {"input_ids": [2]}]
    assert IsomerCollator(lambda given: {"rows": given})(rows) == {"rows": rows}


def test_sets_and_their_rows_can_be_looked_at(sets: IsomerSets) -> None:
    assert sets[:2] == sets[[0, 1]] == [sets[0], sets[1]]
    assert sets[-1] == sets[2]
    assert list(sets) == [sets[0], sets[1], sets[2]]
    assert sets["domain"] == sets.rows["domain"]
    assert sets.column_names == sets.rows.column_names
    assert {"isomer_id", "note", "labels"} <= set(sets.column_names)
