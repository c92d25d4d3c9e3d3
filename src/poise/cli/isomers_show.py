"""What `poise isomers show` prints."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from ..isomers.rows import REQUIRED, Row, group_rows
from ..rows import check_columns, read_jsonl

WIDTH = 120  # of tables in a file or a pipe, where there is no terminal to fit


def show_sets(path: str, count: int) -> None:
    """Print the first `count` sets of a file.

    Raises:
        FileNotFoundError, ValueError: there is no such file, or its rows are no isomers.
    """
    rows = read_jsonl(path)
    for row in rows:
        check_columns(list(row), REQUIRED, path)
    console = Console()
    if not console.is_terminal:
        console = Console(width=WIDTH)
    sets = group_rows(rows)
    for members in list(sets.values())[:count]:
        console.print(_table(members))
    console.print(f"{min(count, len(sets))} of {len(sets)} sets")


def _table(members: Sequence[Row]) -> Table:
    """A column for each domain; rows for the prompt and the completion."""
    table = Table(title=Text(_title(members[0])), title_justify="left", show_lines=True)
    for member in members:
        table.add_column(Text(str(member["domain"])), ratio=1)
    for column in ("prompt", "completion"):
        table.add_row(*(Text(str(member[column]).strip()) for member in members))
    if any(member.get("cue") is not None for member in members):
        table.add_row(*(Text(f"cue: {member.get('cue')}") for member in members))
    return table


def _title(row: Row) -> str:
    shown = [str(row["isomer_id"])]
    shown += [
        f"{name} {row[name]}" for name in ("test", "family", "depth", "answer") if name in row
    ]
    return " · ".join(shown)
