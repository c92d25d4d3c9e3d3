"""Formatting, linting and typing: the hooks of the pre-commit configuration pass."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[1]
HOOKS: list[dict[str, Any]] = [
    hook
    for repository in yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    for hook in repository["hooks"]
]
FOLDERS = [name for name in ("src", "tests", "benchmarks", "examples") if (ROOT / name).is_dir()]


def _run(command: list[str], home: Path) -> None:
    # The hooks say `python`: it is to be this one, also where no environment is active.
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    environment = os.environ | {"PATH": path, "PRE_COMMIT_HOME": str(home)}
    result = subprocess.run(
        command,
        cwd=ROOT,
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    assert result.returncode == 0, f"{shlex.join(command)} failed:\n{result.stdout}"


def _has_git() -> bool:
    return (ROOT / ".git").exists() and shutil.which("git") is not None


@pytest.mark.skipif(not _has_git(), reason="pre-commit needs a git checkout")
def test_every_hook_passes(tmp_path: Path) -> None:
    _run([sys.executable, "-m", "pre_commit", "run", "--all-files", "--color=never"], tmp_path)


@pytest.mark.skipif(_has_git(), reason="pre-commit runs them")
@pytest.mark.parametrize("hook", HOOKS, ids=lambda hook: hook["id"])
def test_each_hooks_command_passes(hook: dict[str, Any], tmp_path: Path) -> None:
    files = FOLDERS if hook.get("pass_filenames", True) else []
    _run([*shlex.split(hook["entry"]), *files], tmp_path)


def test_the_hooks_format_lint_and_type() -> None:
    assert {hook["id"] for hook in HOOKS} >= {"ruff-format", "ruff-check", "mypy"}
