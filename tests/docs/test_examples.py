"""The Python examples of README and docs run as they stand."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md")])
BLOCK = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)


def _examples() -> list[tuple[str, str]]:
    return [
        (f"{page.name}:{page.read_text()[: match.start()].count(chr(10)) + 1}", match[1])
        for page in PAGES
        for match in BLOCK.finditer(page.read_text())
    ]


@pytest.mark.filterwarnings("ignore:.*pin_memory.*:UserWarning")
@pytest.mark.parametrize(("place", "code"), _examples(), ids=[place for place, _ in _examples()])
def test_example_runs(
    place: str, code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_model_path: str
) -> None:
    monkeypatch.chdir(tmp_path)
    # The examples name the embedded model; the tiny one keeps the test short.
    monkeypatch.setattr("poise.models.default_model_path", lambda: Path(tiny_model_path))
    exec(compile(code, place, "exec"), {"__name__": "__main__"})
