"""What Poise relies on in TRL's SDPO trainer is there, under these names and parameters."""

from __future__ import annotations

import ast
import inspect
import re
import tomllib
from importlib.metadata import PackageNotFoundError, requires, version
from itertools import chain
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from trl import SFTTrainer

from poise.trl import contract as _host
from poise.trl.contract import ATTRIBUTES, CONTRACT, SFT_ATTRIBUTES, SFT_CONTRACT, SDPOTrainer

ROOT = Path(__file__).parents[3]
TRAINING = [
    path
    for room in ("trl", "pgpo", "iga")
    for path in sorted((ROOT / "src" / "poise" / room).glob("*.py"))
    if path.name != "contract.py"
]


def breaches(host: type, contract: dict[str, str]) -> list[str]:
    """A sentence for each promise that the class does not keep."""
    found = []
    for name, parameters in contract.items():
        method = inspect.getattr_static(host, name, None)
        if not inspect.isfunction(method):
            found.append(f"{host.__name__}.{name} is missing")
            continue
        present = list(inspect.signature(method).parameters)
        if present != ["self", *parameters.split()]:
            found.append(f"{host.__name__}.{name} takes {present}, expected {parameters}")
    return found


# Host, its contract, and a pattern of the names of our classes on it.
HOSTS: dict[str, tuple[type, dict[str, str], str]] = {
    "SDPO": (SDPOTrainer, CONTRACT, r"(?!IGA)\w*Mixin|PGPOTrainer"),
    "SFT": (SFTTrainer, SFT_CONTRACT, r"CheckpointingMixin|IGATrainer"),
}


@pytest.mark.parametrize("kind", HOSTS)
def test_the_installed_host_keeps_the_contract(kind: str) -> None:
    host, contract, _ = HOSTS[kind]
    assert breaches(host, contract) == []


@pytest.mark.parametrize(
    ("host", "attributes"),
    [(SDPOTrainer, ATTRIBUTES), (SFTTrainer, SFT_ATTRIBUTES)],
    ids=["SDPO", "SFT"],
)
def test_the_installed_host_sets_the_attributes_that_are_relied_on(
    host: type, attributes: tuple[str, ...]
) -> None:
    source = "".join(inspect.getsource(cls) for cls in host.__mro__[:-1])
    missing = [name for name in attributes if not re.search(rf"self\.{name}(:[^=]+)? = ", source)]
    assert missing == []


def _own_classes(kind: str) -> list[ast.ClassDef]:
    """The classes that are mixed into a trainer of TRL's or derived from it."""
    classes = [
        node
        for path in TRAINING
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.ClassDef) and re.fullmatch(HOSTS[kind][2], node.name)
    ]
    assert len(classes) >= {"SDPO": 4, "SFT": 2}[kind]
    return classes


def _overridden(kind: str) -> set[str]:
    methods = (f for cls in _own_classes(kind) for f in cls.body if isinstance(f, ast.FunctionDef))
    return {method.name for method in methods} - {"__init__"}


def _called(kind: str) -> set[str]:
    """Private names that are called on `self`."""
    nodes = (node for cls in _own_classes(kind) for node in ast.walk(cls))
    return {
        node.func.attr
        for node in nodes
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and isinstance(node.func.value, ast.Name)
        and node.func.value.id == "self"
        and node.func.attr.startswith("_")
    }


@pytest.mark.parametrize("kind", HOSTS)
def test_every_method_of_the_host_that_is_overridden_or_called_is_in_the_contract(
    kind: str,
) -> None:
    host, contract, _ = HOSTS[kind]
    used = {name for name in _overridden(kind) | _called(kind) if hasattr(host, name)}
    assert used - contract.keys() == set()


@pytest.mark.parametrize("kind", HOSTS)
def test_every_method_of_the_contract_is_used(kind: str) -> None:
    text = "".join(path.read_text() for path in TRAINING)
    assert [name for name in HOSTS[kind][1] if name not in text] == []


def test_the_context_builder_has_the_methods_that_are_used_of_it() -> None:
    expected = {
        "build": "output prompts rewards feedbacks",
        "_build_reprompt_text": "prompt_text solution_text feedback_text",
    }
    assert breaches(_host.TeacherContextBuilder, expected) == []


def _declared() -> list[Requirement]:
    """Every library with a range, of what is always installed and of the extras."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    texts = [*project["dependencies"], *chain(*project["optional-dependencies"].values())]
    requirements = map(Requirement, texts)
    return [found for found in requirements if found.name != "poise" and not found.extras]


def _named(name: str) -> Requirement:
    (found,) = (requirement for requirement in _declared() if requirement.name == name)
    return found


@pytest.mark.parametrize("requirement", _declared(), ids=lambda requirement: requirement.name)
def test_the_installed_version_is_in_the_declared_range(requirement: Requirement) -> None:
    try:
        installed = version(requirement.name)
    except PackageNotFoundError:
        pytest.skip(f"{requirement.name} is not installed")
    assert requirement.specifier.contains(installed, prereleases=True), (
        f"{requirement.name} {installed} is installed, pyproject.toml declares {requirement}"
    )


def test_trl_is_held_to_one_minor_version() -> None:
    trl = _named("trl")
    major, minor = version("trl").split(".")[:2]
    assert trl.specifier.contains(f"{major}.{minor}.99")
    assert not trl.specifier.contains(f"{major}.{int(minor) + 1}.0")
    assert not trl.specifier.contains(f"{major}.{int(minor) - 1}.99")


def test_vllm_is_what_this_trl_takes() -> None:
    ours = _named("vllm").specifier
    theirs = next(r for r in map(Requirement, requires("trl") or ()) if r.name == "vllm").specifier
    minors = [f"0.{minor}.0" for minor in range(10, 60)]
    assert set(ours.filter(minors)) <= set(theirs.filter(minors))
