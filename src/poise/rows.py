"""Checks of rows and files, each with one clear error before anything expensive starts."""

from __future__ import annotations

import difflib
import itertools
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

# Rows of a stream are read to be checked; a few show what the columns hold.
STREAM_ROWS = 10
# Columns that hold prompt and completion in one, and how to part them.
_WHOLE = {
    "messages": "all but the last of them and the last: rows.map(lambda row: {'prompt': "
    "row['messages'][:-1], 'completion': row['messages'][-1:]})",
    "text": "what stands before the answer and the answer (rows.map)",
}
_NEAR = 0.8  # likeness of a mistyped name; 'options' is no mistyped 'completion'


def check_dataset(
    rows: Any,
    required: Sequence[str] = ("prompt",),
    *,
    filled: Sequence[str] = ("prompt",),
    name: str = "dataset",
) -> None:
    """Check that a data set can be trained on; arguments and errors are those of `checked_rows`."""
    for _ in checked_rows(rows, required, filled=filled, name=name):
        pass


def checked_rows(
    rows: Any,
    required: Sequence[str] = ("prompt",),
    *,
    filled: Sequence[str] = ("prompt",),
    name: str = "dataset",
) -> Iterator[dict[str, Any]]:
    """Rows that can be trained on, each after its check, for more checks in one walk.

    Rows are counted from 0, as in ``rows[0]``. Other columns than those named are the reward
    function's, and hold what it likes.

    Args:
        rows: A ``datasets.Dataset``, a stream (its first rows are checked), or a list of dicts.
        required: Columns that must be there.
        filled: Columns that, where they are, must not be empty in any row.
        name: What errors call the data set.

    Raises:
        ValueError: There is no data set or no row, a column is missing or misspelt, a value
            is empty, or a prompt is neither text nor messages of text.
    """
    if rows is None:
        raise ValueError(f"{name}: expected rows with a column {_listed(required)}, found none")
    if isinstance(rows, (str, bytes, dict)) or not hasattr(rows, "__iter__"):
        found = type(rows).__name__
        raise ValueError(f"{name}: expected a Dataset or a list of rows, found {found}")
    checked = rows if hasattr(rows, "__len__") else list(itertools.islice(rows, STREAM_ROWS))
    if len(checked) == 0:
        raise ValueError(f"{name}: expected at least one row, found none; it is empty")
    first = next(iter(checked))
    if not isinstance(first, dict):
        raise ValueError(f"{name}: expected rows that are dicts, found {type(first).__name__}")
    check_columns(list(first), required, name)
    texts = [column for column in ("prompt", "completion") if column in (*filled, "prompt")]
    for index, row in enumerate(checked):
        fault = text_fault(row, texts)
        for column in filled:
            if column in first and _is_empty(row.get(column)):
                found = repr(row.get(column))
                fault = f"expected a filled {column!r}, found {found}; fix or remove the row"
                break
        if fault:
            raise ValueError(f"{name}, row {index}: {fault}")
        yield row


def check_columns(found: Sequence[str], required: Sequence[str], name: str = "dataset") -> None:
    """Check that columns are there; a ValueError names the nearest where one is missing."""
    for column in required:
        if column in found:
            continue
        near = difflib.get_close_matches(column, found, n=1, cutoff=_NEAR)
        hint = f"did you mean {near[0]!r}? Rename it" if near else "add it"
        whole = [name for name in _WHOLE if name in found]
        if column == "prompt" and whole and not near:
            hint = f"make prompt and completion of {whole[0]!r}, {_WHOLE[whole[0]]}"
        raise ValueError(
            f"{name}: expected a column {column!r}, found {_listed(found) or 'no columns'}; {hint}"
        )


def check_some(name: str, found: Any, known: Iterable[Any]) -> None:
    """Check that a list holds some of the known values, each one once, else raise ValueError.

    `name` is what the error calls the list.
    """
    known, is_list = list(known), isinstance(found, Sequence) and not isinstance(found, str)
    shown = list(found) if is_list else found
    if not is_list or not found or not set(found) <= set(known):
        raise ValueError(f"{name}: expected some of {', '.join(map(str, known))}, found {shown!r}")
    if len(set(found)) != len(found):
        raise ValueError(f"{name}: expected each one once, found {shown!r}")


def read_jsonl(path: str | Path) -> list[dict[str, Any]]:
    """Read a file with one JSON object a line; blank ones are passed over.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a line is not a JSON object (file and line are named), or there is none.
    """
    rows = []
    for number, row in read_lines(path):
        if isinstance(row, str):
            raise ValueError(f"{path}, line {number}: {row}")
        rows.append(row)
    if not rows:
        raise ValueError(f"{path}: expected at least one line with a JSON object, found none")
    return rows


def read_lines(path: str | Path) -> Iterator[tuple[int, dict[str, Any] | str]]:
    """Each line's number, and its row, or a sentence on what it is in place of one."""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: expected a .jsonl file, found no file there")
    for number, line in enumerate(path.read_bytes().splitlines(), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line.decode())
        except (UnicodeDecodeError, json.JSONDecodeError) as error:
            found = f"unreadable text ({error}); fix or remove the line"
            row = f"expected one JSON object in UTF-8, found {found}"
        else:
            if not isinstance(row, dict):
                found = type(row).__name__
                row = f'expected a JSON object like {{"prompt": ...}}, found {found}'
        yield number, row


def write_jsonl(path: str | Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write JSON lines, in folders that are made if need be, under a name that appears only when
    they are complete."""
    path = Path(path).resolve()  # a link stays one
    path.parent.mkdir(parents=True, exist_ok=True)
    is_device = path.exists() and not path.is_file()
    partial = path if is_device else path.with_name(f".{path.name}.partial")
    with partial.open("w", encoding="utf-8") as file:
        file.writelines(map(json_line, rows))
        if not is_device:
            file.flush()
            os.fsync(file.fileno())
    if not is_device:
        os.replace(partial, path)


def json_line(row: Mapping[str, Any]) -> str:
    """A row as a line of a file of JSON lines."""
    return json.dumps(row, ensure_ascii=False) + "\n"


def _is_empty(value: Any) -> bool:
    value = value.strip() if isinstance(value, str) else value
    return value is None or (hasattr(value, "__len__") and len(value) == 0)


def text_of(value: Any) -> str:
    """A prompt or completion as text, if need be from its messages."""
    if not isinstance(value, list):
        return "" if value is None else str(value)
    return "\n".join(_content(turn) for turn in value)


def text_fault(row: Mapping[str, Any], columns: Sequence[str]) -> str | None:
    """What is wrong with a row's prompt or completion, None for nothing.

    Each is text, or messages of text of which the last says something; both are of one kind.
    """
    values = {column: row[column] for column in columns if row.get(column) is not None}
    for column, value in values.items():
        if not isinstance(value, str) and (fault := _fault(column, value)):
            return f"expected {fault}"
    kinds = ["text" if isinstance(value, str) else "messages" for value in values.values()]
    if len(set(kinds)) > 1:
        return (
            f"expected {' and '.join(values)} both as text or both as messages, found "
            f"{' and '.join(kinds)}; write both alike"
        )
    return None


def _content(turn: Mapping[str, Any]) -> str:
    content = turn.get("content")
    if isinstance(content, list):
        return "".join(part.get("text") or "" for part in content)
    return content or ""


def _fault(column: str, value: Any) -> str | None:
    if not isinstance(value, list) or not all(isinstance(turn, dict) for turn in value):
        return f"a {column} that is text or a list of messages, found {type(value).__name__}"
    for turn in value:
        if not isinstance(turn.get("role"), str):
            found = _listed(turn) or "neither"
            return f"messages with 'role' and 'content', found one with {found}; add its role"
        content = turn.get("content")
        if not isinstance(content, str | list | None):
            return f"messages whose content is text, found {type(content).__name__}"
        for part in content if isinstance(content, list) else ():
            kind = part.get("type") if isinstance(part, dict) else type(part).__name__
            if kind != "text":
                text = f"messages of text, found a part of type {kind!r}"
                return f"{text}; Poise trains on text alone"
    if not value or _is_empty(_content(value[-1])):
        return f"a filled {column}, found a last message without content; fix or remove the row"
    return None


def _listed(names: Iterable[str]) -> str:
    return ", ".join(map(repr, names))
