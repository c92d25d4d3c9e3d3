"""Public names are in the reference, links lead somewhere, generated pages are up to date."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import poise

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(DOCS.glob("*.md"))]
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")


@pytest.mark.parametrize("name", poise.__all__)
def test_a_public_name_is_documented(name: str) -> None:
    found = getattr(poise, name)
    assert (found.__doc__ or "").strip(), f"{name} has no docstring"
    assert f"::: {found.__module__}.{name}\n" in (DOCS / "reference.md").read_text()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_link_leads_somewhere(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    dead = []
    for link in LINK.findall(text):
        if re.match(r"\w+:", link):
            continue
        file, _, anchor = link.partition("#")
        target = (page.parent / file) if file else page
        if not target.exists() or (anchor and anchor not in _anchors(target)):
            dead.append(link)
    assert dead == []


def _anchors(page: Path) -> set[str]:
    titles = re.findall(r"^#+ (.+)$", page.read_text(), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-") for title in titles}


def test_the_page_of_arguments_is_what_the_configurations_say() -> None:
    spec = importlib.util.spec_from_file_location("write_arguments", DOCS / "write_arguments.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.PAGE.read_text() == module.page(), "python docs/write_arguments.py"


def test_the_pages_build_without_a_warning(tmp_path: Path) -> None:
    """MkDocs is strict here: a warning is a failure."""
    # Not --quiet, with which it counts none.
    command = [sys.executable, "-m", "mkdocs", "build", "--site-dir", str(tmp_path)]
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "tiled_distillation_loss" in (tmp_path / "reference" / "index.html").read_text()
    assert (tmp_path / "experiments" / "distance" / "figure.png").is_file()
