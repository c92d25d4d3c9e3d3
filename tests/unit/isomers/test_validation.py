"""Each kind of fault is planted in sound sets, and found where it was planted."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from datasets import Dataset

from poise.data.load import load_questions
from poise.iga.preflight import check_isomer_rows
from poise.isomers.forms import Row
from poise.isomers.generate import generate_isomers
from poise.isomers.rows import REQUIRED, isomer_tests
from poise.isomers.validate import validate_isomers
from poise.rows import write_jsonl

DOMAINS = 4


def sound() -> list[Row]:
    """Three sets, each with four problems: rows 0 to 3, 4 to 7, 8 to 11."""
    return generate_isomers(3, seed=6, families=["ordering", "branching"], depths=[2])


def change(row: int, **values: object) -> Callable[[list[Row]], None]:
    return lambda rows: rows[row].update(values)


def change_set(first: int, **values: object) -> Callable[[list[Row]], None]:
    def plant(rows: list[Row]) -> None:
        for row in rows[first : first + DOMAINS]:
            row.update(values)

    return plant


def copy(column: str, source: int, target: int) -> Callable[[list[Row]], None]:
    def plant(rows: list[Row]) -> None:
        rows[target][column] = rows[source][column]

    return plant


def drop(row: int, column: str) -> Callable[[list[Row]], None]:
    return lambda rows: rows[row].__delitem__(column)


def loosen_ending(rows: list[Row]) -> None:
    rows[2]["completion"] += "."


def only_answer(rows: list[Row]) -> None:
    rows[2]["completion"] = f"Answer: {rows[2]['answer_text']}"


def leak(rows: list[Row]) -> None:
    rows[2]["prompt"] += f" Answer: {rows[2]['answer_text']}"


def repeat_option(rows: list[Row]) -> None:
    options, right = list(rows[2]["options"]), rows[2]["answer_text"]
    wrong = [i for i, option in enumerate(options) if option != right]
    options[wrong[0]] = options[wrong[1]]
    rows[2]["options"] = options


def other_text(rows: list[Row]) -> None:
    row = rows[2]
    wrong = next(option for option in row["options"] if option != row["answer_text"])
    row["completion"] = row["completion"].replace(
        f"Answer: {row['answer_text']}", f"Answer: {wrong}"
    )
    row["answer_text"] = wrong


def same_wording(rows: list[Row]) -> None:
    rows[2]["prompt"] = rows[1]["prompt"].upper().replace(".", " .")


def share_form(rows: list[Row]) -> None:
    for old, new in zip(rows[:4], rows[4:8], strict=True):
        new.update({name: old[name] for name in ("form", "family")})


def share_id(rows: list[Row]) -> None:
    for row in rows[:4]:
        row["test"] = "first"
    for row in rows[4:]:
        row["test"] = "second"
    for row in rows[4:8]:
        row["isomer_id"] = rows[0]["isomer_id"]


# Kind, line, and how to plant it.
PLANTED: list[tuple[str, int, Callable[[list[Row]], None]]] = [
    *[("missing column", 3, drop(2, column)) for column in (*REQUIRED, "answer", "cue")],
    ("wrong type", 3, change(2, depth="2")),
    ("wrong type", 3, change(2, depth=True)),
    ("wrong type", 3, change(2, prompt=None)),
    ("wrong type", 3, change(2, options=["a", 1])),
    *[("empty", 3, change(2, **{name: " "})) for name in ("prompt", "completion", "isomer_id")],
    *[("empty", 3, change(2, **{name: ""})) for name in ("domain", "answer", "form")],
    ("missing domain", 1, lambda rows: rows.pop(2)),
    ("repeated domain", 3, copy("domain", 1, 2)),
    ("duplicate problem", 7, copy("prompt", 2, 6)),
    ("duplicate form", 5, share_form),
    ("same wording", 3, same_wording),
    ("answers disagree", 3, lambda rows: rows[2].update(answer=_another(rows[2]))),
    ("forms differ", 3, copy("form", 8, 2)),
    ("families differ", 3, change(2, family="rates")),
    ("depths differ", 3, change(2, depth=3)),
    ("unreadable form", 1, change_set(0, form="{")),
    ("unreadable form", 1, change_set(0, form="[1]")),
    ("options and meanings", 3, lambda rows: rows[2]["meanings"].pop()),
    ("repeated option", 3, repeat_option),
    ("answer not offered", 1, change_set(0, answer="e99")),
    ("wrong answer text", 3, other_text),
    ("wrong ending", 3, loosen_ending),
    ("wrong ending", 3, change(2, completion="It is Anna.")),
    ("no reasoning", 3, only_answer),
    ("leaked answer", 3, leak),
    ("unknown cue", 3, change(2, cue="e99")),
    ("reused id", 5, share_id),
]


def _another(row: Row) -> str:
    return next(meaning for meaning in row["meanings"] if meaning != row["answer"])


def test_sound_sets_have_no_faults(tmp_path: Path) -> None:
    assert validate_isomers(sound()) == []
    write_jsonl(tmp_path / "sets.jsonl", sound())
    assert validate_isomers(tmp_path / "sets.jsonl") == []
    bare = [{name: row[name] for name in REQUIRED} for row in sound()]
    assert validate_isomers(bare) == []


@pytest.mark.parametrize(
    ("kind", "line", "plant"),
    PLANTED,
    ids=[f"{i}-{kind}" for i, (kind, _, _) in enumerate(PLANTED)],
)
def test_a_planted_fault_is_found_in_its_place(
    kind: str, line: int, plant: Callable[[list[Row]], None], tmp_path: Path
) -> None:
    rows = sound()
    plant(rows)
    path = tmp_path / "sets.jsonl"
    write_jsonl(path, rows)
    found = [fault for fault in validate_isomers(path) if fault.kind == kind]
    assert found, validate_isomers(path)
    assert (found[0].file, found[0].line) == (str(path), line)
    assert str(found[0]).startswith(f"{path}, line {line}")
    if "isomer_id" in rows[line - 1]:
        assert found[0].isomer_id == rows[line - 1]["isomer_id"]
        assert f"{kind}: " in str(found[0]).partition(f"set {found[0].isomer_id}: ")[2]


def own(**changes: object) -> list[Row]:
    """One's own rows: two sets in two domains, without options."""
    rows: list[Row] = [
        {"isomer_id": name, "domain": domain, "prompt": f"{name}, {domain}?", "completion": " 3"}
        for name in "ab"
        for domain in ("law", "sport")
    ]
    rows[2].update(changes)
    return rows


def talk(text: str, role: str = "user") -> list[Row]:
    return [{"role": role, "content": text}]


def tokens(**changes: object) -> list[Row]:
    """The same, tokenised."""
    rows: list[Row] = [
        {name: row[name] for name in ("isomer_id", "domain")} | {"input_ids": [n, 1], "labels": [n]}
        for n, row in enumerate(own())
    ]
    rows[2].update(changes)
    return rows


TALKS = [row | {name: talk(row[name]) for name in ("prompt", "completion")} for row in own()]
# Own rows, and of which kind their faults and warnings are.
ACCEPTED: dict[str, tuple[list[Row], set[str]]] = {
    "messages": (TALKS, set()),
    "a leak in messages": (
        [r | {"prompt": talk("Answer: 3")} for r in TALKS[:1]],
        {"leaked answer"},
    ),
    "numbers as ids": ([row | {"isomer_id": ord(row["isomer_id"])} for row in own()], set()),
    "a set without a domain": (own()[:3], {"missing domain"}),
    "a leaked answer": (own(prompt="Answer: 3?"), {"leaked answer"}),
    "another order of letters": (own(answer="B"), {"answers disagree"}),
    "options that are none": (own(options=None), set()),
    "one row with options": ([*own()[:3], sound()[0]], {"missing domain"}),
    "tokens": (tokens(), set()),
    "tokens beside an empty prompt": (
        [row | {"prompt": "", "completion": ""} for row in tokens()],
        set(),
    ),
    "cases that a program is tested by": (
        [row | {"test": [f"assert f({n})"]} for n, row in enumerate(own())],
        set(),
    ),
    "a program's cases by name": (
        [row | {"test": {"input": n}} for n, row in enumerate(own())],
        set(),
    ),
    "a column of one's own": (own(form="a table", depth="low"), {"forms differ", "depths differ"}),
}
REFUSED: dict[str, tuple[list[Row], str]] = {
    "a turn without a role": (own(prompt=[{"content": "x"}], completion=talk("y")), "wrong text"),
    "an empty turn": (own(prompt=talk("x"), completion=talk(" ")), "wrong text"),
    "no turn": (own(prompt=[], completion=talk("y")), "wrong text"),
    "text and messages": ([row | {"completion": talk("y")} for row in own()], "wrong text"),
    "ids of two kinds": ([*own()[:3], own()[3] | {"isomer_id": 1}], "wrong type"),
    "rows of text and of messages": ([own()[0], *TALKS[1:]], "wrong type"),
    "an empty completion": (own(completion=" "), "empty"),
    "no domain": (own(domain=""), "empty"),
    "a domain twice": (own(domain="sport"), "repeated domain"),
    "a domain twice, of programs": (
        [row | {"test": [n]} for n, row in enumerate(own(domain="sport"))],
        "repeated domain",
    ),
    "images": ([row | {"image": None} for row in own()], "image column"),
    "no tokens": (tokens(input_ids=[]), "empty"),
    "a domain twice, of tokens": (tokens(domain="sport"), "repeated domain"),
}


@pytest.mark.parametrize("case", ACCEPTED)
def test_what_the_trainer_takes_has_no_fault(case: str, tmp_path: Path) -> None:
    rows, doubts = ACCEPTED[case]
    assert check_isomer_rows(Dataset.from_list(rows))
    found = validate_isomers(rows)
    assert {fault.kind for fault in found} - {"wrong ending"} == doubts
    assert all(fault.is_doubtful and ": warning: " in str(fault) for fault in found)
    write_jsonl(tmp_path / "own.jsonl", rows)
    assert (
        load_questions(str(tmp_path / "own.jsonl")).to_list() == Dataset.from_list(rows).to_list()
    )


@pytest.mark.parametrize("case", REFUSED)
def test_what_the_trainer_refuses_is_a_fault(case: str, tmp_path: Path) -> None:
    rows, kind = REFUSED[case]
    assert kind in {fault.kind for fault in validate_isomers(rows) if not fault.is_doubtful}
    write_jsonl(tmp_path / "own.jsonl", rows)
    with pytest.raises(ValueError, match=f"found faults .*: {kind}: "):
        load_questions(str(tmp_path / "own.jsonl"))
    kinds = {(type(row.get("prompt")), type(row["isomer_id"])) for row in rows}
    if len(kinds) == 1:  # else no data set
        with pytest.raises(ValueError, match="expected"):
            check_isomer_rows(Dataset.from_list(rows))


def test_tokens_without_labels_are_a_fault() -> None:
    """By default: with `completion_only_loss=False` the trainer takes them."""
    rows = [{name: row[name] for name in row if name != "labels"} for row in tokens()]
    assert {fault.kind for fault in validate_isomers(rows)} == {"missing column"}


def test_several_tests_are_sets_of_their_own_and_nothing_to_train_on(tmp_path: Path) -> None:
    rows = isomer_tests(2, tests=["in_distribution", "no_cue"])
    assert validate_isomers(rows) == []
    with pytest.raises(ValueError, match=r"set .* several tests .* `poise eval`"):
        check_isomer_rows(Dataset.from_list(rows))


def test_files_are_compared_with_each_other(tmp_path: Path) -> None:
    first, second = tmp_path / "train.jsonl", tmp_path / "test.jsonl"
    rows = sound()
    write_jsonl(first, rows)
    other = generate_isomers(3, "test", families=["ordering"], depths=[2])
    write_jsonl(second, other)
    assert validate_isomers(first, second) == []
    for row in other[:DOMAINS]:
        row["isomer_id"] = rows[0]["isomer_id"]
    other[5]["prompt"] = rows[5]["prompt"]
    write_jsonl(second, other)
    found = {fault.kind: fault for fault in validate_isomers(second, first)}
    assert set(found) == {"reused id", "duplicate problem"}
    assert found["duplicate problem"].file == str(first)
    assert f"{second}, line 6" in found["duplicate problem"].text
    assert not any(fault.is_doubtful for fault in found.values())


def leaks(first: list[Row], second: list[Row]) -> set[str]:
    return {fault.kind for fault in validate_isomers(first, second)}


def test_training_on_a_test_is_found_whatever_the_test_is_called() -> None:
    tests = isomer_tests(4, seed=1)
    train = [row for row in tests if row["test"] == "in_distribution"]
    bare = [{name: row[name] for name in row if name != "test"} for row in train]
    named = [row | {"isomer_id": f"other {row['isomer_id']}"} for row in bare]
    assert validate_isomers(tests) == []  # among themselves they share forms and ids
    for rows in (train, bare):
        assert leaks(rows, tests) == {"duplicate problem", "duplicate form", "reused id"}
        assert leaks(tests, rows) == {"duplicate problem", "duplicate form", "reused id"}
    assert leaks(named, tests) == {"duplicate problem", "duplicate form"}


def test_a_set_that_is_reworded_in_another_file_is_found() -> None:
    rows = sound()
    reworded = [row | {"prompt": f"Read this. {row['prompt']}"} for row in rows]
    assert leaks(rows, reworded) == {"duplicate form", "reused id"}
    named = [row | {"isomer_id": f"other {row['isomer_id']}"} for row in reworded]
    assert leaks(rows, named) == {"duplicate form"}
    bare = [{name: row[name] for name in REQUIRED} for row in reworded]
    assert leaks(rows, bare) == {"reused id"}


def test_lines_that_are_no_rows_are_faults_among_others(tmp_path: Path) -> None:
    path, rows = tmp_path / "sets.jsonl", sound()
    rows[0]["prompt"] += " Answer: (A)"
    write_jsonl(path, rows)
    with path.open("a") as file:
        file.write("not json\n[1]\n")
    found = validate_isomers(path)
    assert [fault.line for fault in found if fault.kind == "unreadable"] == [
        len(rows) + 1,
        len(rows) + 2,
    ]
    assert any(fault.line == 1 for fault in found)


def test_a_missing_file_and_no_file_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"none\.jsonl: expected a \.jsonl file"):
        validate_isomers(tmp_path / "none.jsonl")
    with pytest.raises(ValueError, match="expected at least one file"):
        validate_isomers()
    with pytest.raises(ValueError, match="rows: expected at least one row"):
        validate_isomers([])
