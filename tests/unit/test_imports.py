"""The architecture, as import rules: everything depends one way."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

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


# What a user of another trainer can take: torch alone.
PARTS = {
    "pgpo": ("signal", "ranges", "viscosity", "distance", "step_scale"),
    "iga": (
        *("mask", "domains", "engine", "settings", "adapters"),
        *("direction_space", "factor_space", "weight_space", "baselines"),
    ),
    "loss": ("divergence", "tiled", "terms"),
}
LIBRARIES = ("torch", "transformers", "trl", "peft", "accelerate", "datasets")


def test_the_parts_import_torch_alone() -> None:
    places, ours = ["optimizers.py", "sharding.py"], ["poise.optimizers", "poise.sharding"]
    ours.append("poise.precision")  # with torch alone at its top
    for room, names in PARTS.items():
        for name in names:
            is_folder = (PACKAGE / room / name).is_dir()
            places.append(f"{room}/{name}" + ("" if is_folder else ".py"))
            ours.append(f"poise.{room}.{name}")

    def is_wrong(found: Import) -> bool:
        if found.root in ("peft", "torchjd"):
            return found.is_at_top
        return not (_is_standard(found) or found.root == "torch" or found.reaches(*ours))

    assert _offences(places, is_wrong) == []


def test_data_and_isomers_load_without_torch() -> None:
    places = ["data", "isomers", "rewards.py", "rows.py", "splits.py"]
    assert _offences(places, lambda found: found.is_at_top and found.root in LIBRARIES) == []


# These load models and sample from them; all else in `evaluate` reads saved records.
SAMPLERS = {"ask", "load", "represent", "vllm"}


def test_what_reads_saved_records_needs_no_models() -> None:
    files = [f"evaluate/{f.name}" for f in _files("evaluate") if f.stem not in SAMPLERS]
    assert {"records", "statistics", "report"} <= {Path(file).stem for file in files}

    def is_wrong(found: Import) -> bool:
        return found.root in LIBRARIES or found.reaches("poise.models")

    assert _offences(files, is_wrong) == []


def test_internals_of_other_libraries_are_imported_in_one_file() -> None:
    def is_wrong(found: Import) -> bool:
        parts = [*found.module.split("."), found.name or ""]
        is_internal = any(part.startswith("_") for part in parts)
        return found.root in LIBRARIES[1:] and (is_internal or found.reaches("trl.experimental"))

    offenders = {found.file for found in imports(*_files(".")) if is_wrong(found)}
    assert offenders == {PACKAGE / "trl" / "contract.py"}


def test_everything_depends_one_way() -> None:
    rooms = [
        *("extras", "versions", "threads", "precision", "optimizers", "sharding", "prompt_cache"),
        *("splits", "rows", "rewards", "models"),
        *("loss", "isomers", "data", "trl", "pgpo", "iga", "memory", "evaluate"),
        *("cli", "demo"),
    ]
    here = {path.stem for path in PACKAGE.iterdir() if path.name != "__pycache__"}
    assert {name for name in here if name[0] not in "_."} - {"py"} == set(rooms)
    backwards = []
    for found in imports(*_files(".")):
        own = found.file.relative_to(PACKAGE).parts[0].removesuffix(".py")
        parts = f"{found.module}.{found.name}".split(".")
        other = parts[1] if parts[0] == "poise" and len(parts) > 1 else own
        is_trainer = {own, other} == {"pgpo", "iga"}
        if {own, other} <= set(rooms) and (rooms.index(other) > rooms.index(own) or is_trainer):
            backwards.append(str(found))
        if found.reaches("lab"):
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
