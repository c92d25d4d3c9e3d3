"""The architecture, as import rules: everything depends one way."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[2] / "src"
PACKAGE = SOURCE / "poise"


@dataclass(frozen=True)
class Import:
    """One imported name of a file: `from trl.x import y` is module `trl.x`, name `y`."""

    file: Path
    line: int
    module: str
    name: str | None
    is_at_top: bool

    @property
    def root(self) -> str:
        return self.module.split(".")[0]

    def reaches(self, *packages: str) -> bool:
        full = f"{self.module}.{self.name}" if self.name else self.module
        return any(full == p or full.startswith(f"{p}.") for p in packages)

    def __str__(self) -> str:
        what = f"{self.module}.{self.name}" if self.name else self.module
        return f"{self.file.relative_to(SOURCE)}:{self.line} imports {what}"


def _nodes(node: ast.AST, is_at_top: bool = True) -> Iterator[tuple[ast.AST, bool]]:
    """All nodes, with whether they run on import; what only a type checker reads is left out."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            continue
        inside = isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
        yield child, is_at_top
        yield from _nodes(child, is_at_top and not inside)


def _absolute(file: Path, node: ast.ImportFrom) -> str:
    if not node.level:
        return node.module or ""
    package = file.relative_to(SOURCE).parts[: -node.level]
    return ".".join([*package, *([node.module] if node.module else [])])


def imports(*files: Path) -> list[Import]:
    """Every import of the files; relative ones made absolute."""
    found = []
    for file in files:
        for node, is_at_top in _nodes(ast.parse(file.read_text())):
            if isinstance(node, ast.Import):
                names = [(alias.name, None) for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [(_absolute(file, node), alias.name) for alias in node.names]
            else:
                continue
            found += [Import(file, node.lineno, *name, is_at_top) for name in names]
    return found


def _files(*places: str) -> list[Path]:
    """Python files of folders and files of the package; there must be some."""
    files = []
    for place in places:
        path = PACKAGE / place
        found = sorted(path.rglob("*.py")) if path.is_dir() else [path]
        assert found and all(file.is_file() for file in found), f"{place} is gone"
        files += found
    return files


def _offences(places: list[str], is_wrong: Callable[[Import], bool]) -> list[str]:
    return [str(found) for found in imports(*_files(*places)) if is_wrong(found)]


def _is_standard(found: Import) -> bool:
    return found.root in sys.stdlib_module_names


def test_core_imports_torch_the_standard_library_and_itself() -> None:
    def is_wrong(found: Import) -> bool:
        return not (_is_standard(found) or found.root == "torch" or found.reaches("poise.core"))

    assert _offences(["core"], is_wrong) == []


def test_data_knows_nothing_of_training_evaluation_and_commands() -> None:
    later = ("poise.training", "poise.evaluation", "poise.cli")
    assert _offences(["data"], lambda found: found.reaches(*later)) == []


def test_data_loads_without_torch() -> None:
    heavy = ("torch", "transformers", "trl", "peft", "accelerate")
    assert _offences(["data"], lambda found: found.is_at_top and found.root in heavy) == []


# These load models and sample from them; all else in `evaluation` reads saved records.
SAMPLERS = {"generation", "loading", "representations", "sampling"}


@pytest.mark.parametrize("name", ["metrics", "statistics", "report", "plots", "records"])
def test_the_readers_of_records_are_where_the_rule_looks(name: str) -> None:
    assert (PACKAGE / "evaluation" / f"{name}.py").is_file()


def test_what_reads_saved_records_needs_neither_training_nor_models() -> None:
    files = [f"evaluation/{f.name}" for f in _files("evaluation") if f.stem not in SAMPLERS]
    heavy = ("transformers", "trl", "peft", "accelerate", "torch")

    def is_wrong(found: Import) -> bool:
        return found.root in heavy or found.reaches("poise.training", "poise.cli", "poise.models")

    assert _offences(files, is_wrong) == []


def test_training_knows_nothing_of_evaluation_and_commands() -> None:
    later = ("poise.cli", "poise.evaluation")
    assert _offences(["training"], lambda found: found.reaches(*later)) == []


def test_evaluation_knows_nothing_of_training_and_commands() -> None:
    later = ("poise.cli", "poise.training")
    assert _offences(["evaluation"], lambda found: found.reaches(*later)) == []


def test_host_internals_are_imported_in_one_file() -> None:
    hosts = ("trl", "transformers", "peft", "accelerate", "datasets")

    def is_wrong(found: Import) -> bool:
        parts = [*found.module.split("."), found.name or ""]
        is_internal = any(part.startswith("_") for part in parts)
        return found.root in hosts and (is_internal or found.reaches("trl.experimental"))

    offenders = {found.file for found in imports(*_files(".")) if is_wrong(found)}
    assert offenders == {PACKAGE / "training" / "_host.py"}


def test_methods_import_core_alone_and_torchjd_late() -> None:
    def is_wrong(found: Import) -> bool:
        if found.root == "torchjd":
            return found.is_at_top
        ours = found.reaches("poise.core", "poise.methods")
        return not (_is_standard(found) or found.root == "torch" or ours)

    assert _offences(["methods"], is_wrong) == []


def test_gradients_import_torch_core_and_methods_and_peft_late() -> None:
    def is_wrong(found: Import) -> bool:
        if found.root == "peft":
            return found.is_at_top
        ours = found.reaches("poise.core", "poise.gradients", "poise.methods")
        return not (_is_standard(found) or found.root == "torch" or ours)

    assert _offences(["gradients"], is_wrong) == []


def test_there_is_no_circle_among_the_packages() -> None:
    # The engine takes a method's settings, so methods come before gradients.
    order = ["extras", "threads", "core", "machine", "reading", "methods", "gradients", "data"]
    order += ["models", "training", "evaluation", "bench", "cli"]

    def place(name: str) -> int:
        return order.index(name) if name in order else -1

    backwards = []
    for found in imports(*_files(".")):
        own = found.file.relative_to(PACKAGE).parts[0].removesuffix(".py")
        parts = f"{found.module}.{found.name}".split(".")
        is_ours = parts[0] == "poise" and len(parts) > 1
        if is_ours and own in order and place(parts[1]) > place(own):
            backwards.append(str(found))
    assert backwards == []


def _modules_after(statement: str) -> set[str]:
    code = f"import sys; {statement}; print(*sys.modules)"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    return {name.split(".")[0] for name in result.stdout.split()}


def test_importing_poise_is_light() -> None:
    loaded = _modules_after("import poise")
    assert "poise" in loaded
    assert loaded.isdisjoint({"torch", "numpy", "transformers", "trl", "datasets", "matplotlib"})
