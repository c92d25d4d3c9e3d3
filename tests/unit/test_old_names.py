"""Old import paths load the new modules, with a warning."""

from __future__ import annotations

import importlib
import sys
import warnings
from types import ModuleType

import pytest

import poise
from poise._old_names import MOVED, PACKAGES

MODULES = [*MOVED.items(), ("methods.baselines.irm", "iga.baselines.irm")]


def _import(name: str) -> ModuleType:
    """A first import, as in another process."""
    for known in [known for known in sys.modules if known.startswith(name)]:
        del sys.modules[known]
    return importlib.import_module(name)


@pytest.mark.parametrize(("old", "new"), MODULES)
def test_a_module_is_the_one_of_the_new_name(old: str, new: str) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = _import(f"poise.{old}")
    said = f"poise.{old} is poise.{new} now; its old name goes with the next release"
    assert said in [str(warning.message) for warning in caught]
    assert found is importlib.import_module(f"poise.{new}")


@pytest.mark.parametrize("package", PACKAGES)
def test_a_package_that_is_gone_has_the_public_names(package: str) -> None:
    with pytest.warns(FutureWarning, match="old name goes"):
        found = _import(f"poise.{package}")
    assert found.StepScale is poise.StepScale and found.StepRecord is poise.StepRecord


def test_another_name_is_not_found() -> None:
    with pytest.warns(FutureWarning), pytest.raises(ModuleNotFoundError, match="nowhere"):
        _import("poise.core")
        importlib.import_module("poise.core.nowhere")
