"""Modules under their names of 0.1: for one release they still load, with a warning."""

from __future__ import annotations

import sys
import warnings
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

# Old package: what it held is in `MOVED`, or a public name of the library.
PACKAGES = ("core", "gradients", "methods", "training")
# What users imported by module: old -> new.
MOVED = {
    "core.conflict": "iga.mask",
    "core.distance": "pgpo.distance",
    "core.divergence": "loss.divergence",
    "core.information": "pgpo.signal",
    "core.lowrank": "iga.weight_space",
    "core.tiled_loss": "loss.tiled",
    "core.viscosity": "pgpo.viscosity",
    "data.rewards": "rewards",
    "gradients.domains": "iga.domains",
    "gradients.engine": "iga.engine",
    "iga.invariant": "iga.settings",
    "methods.baselines": "iga.baselines",
    "methods.iga": "iga.settings",
    "training.iga_config": "iga.config",
    "training.iga_trainer": "iga.trainer",
    "training.pgpo_config": "pgpo.config",
    "training.pgpo_trainer": "pgpo.trainer",
    "training.step_scale": "pgpo.step_scale",
    "training.teacher_refresh": "pgpo.refresh",
}


class _OldNames(MetaPathFinder, Loader):
    """Finds a module under its old name, and hands out the new one."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        library, _, old = name.partition(".")
        package, _, module = old.rpartition(".")
        new = MOVED.get(old)
        if package == "methods.baselines":
            new = f"{MOVED[package]}.{module}"
        if library != "poise" or (new is None and old not in PACKAGES):
            return None
        new = f"poise.{new}" if new else "poise"
        says = f"{name} is {new} now; its old name goes with the next release"
        warnings.warn(says, FutureWarning, stacklevel=2)
        return ModuleSpec(name, self, origin=new, is_package=old in PACKAGES)

    def exec_module(self, module: ModuleType) -> None:
        spec = module.__spec__
        assert spec is not None and spec.origin is not None
        new = import_module(spec.origin)
        if spec.submodule_search_locations is None:
            sys.modules[spec.name] = new
        else:
            vars(module)["__getattr__"] = lambda name: getattr(new, name)


def install() -> None:
    """Let old names be found, before a folder that a new package shares with its old name."""
    sys.meta_path.insert(0, _OldNames())
