"""With nothing but torch: the core, the step scale, the tiled loss and the engine work, and what
needs more says in one line what to install."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions, requires
from pathlib import Path

import pytest

from poise.extras import EXTRAS, what_to_install

ROOT = Path(__file__).parents[2]

# Lets no finder find these libraries.
HIDE = """
import sys
class Without:
    def __init__(self, finder):
        self.finder = finder
    def find_spec(self, name, *rest):
        return None if name in {hidden!r} else self.finder.find_spec(name, *rest)
    def __getattr__(self, name):
        return getattr(self.finder, name)
sys.meta_path[:] = map(Without, sys.meta_path)
"""
# Somebody's own loop: the tiled loss, its signal, and a scaled step. The engine's mask beside it.
OWN_LOOP = """
import torch
from poise.loss.divergence import Divergence
from poise.pgpo.signal import information_sum, token_information
from poise.loss.tiled import tiled_distillation_loss
from poise.pgpo.viscosity import Viscosity
from poise.iga.engine import GradientEngine
from poise.iga.baselines import make_baseline
from poise.iga.settings import IGA
from poise import StepScale

body, head = torch.nn.Linear(4, 8), torch.nn.Linear(8, 11)
optimizer = torch.optim.AdamW([*body.parameters(), *head.parameters()], lr=0.1, weight_decay=0.0)
scale = StepScale(optimizer, Viscosity(sensitivity=1.0))
for _ in range(2):
    hidden, tokens, mask = body(torch.randn(6, 4)), torch.randint(11, (6,)), torch.ones(6)
    loss = tiled_distillation_loss(
        hidden, torch.randn(6, 8), head, head, tokens, mask / 6,
        divergence=Divergence("full_logits"), tile_tokens=4,
    )
    information = token_information("entropy", loss)
    scale.observe(information_sum(information[None], mask[None]))
    loss.loss.backward()
    optimizer.step()
assert scale.last.signal is not None and scale.last.multiplier > 0

assert IGA(tau=1.0).mask is not None and make_baseline("vrex", domains=2) is not None

try:
    from poise import PGPOTrainer
except ImportError as error:
    print(error)
"""


def _run(code: str) -> subprocess.CompletedProcess[str]:
    """Runs the code where only torch, what torch requires, and Poise can be imported."""
    needed = {re.split(r"[^\w-]", text)[0] for text in requires("torch") or () if ";" not in text}
    needed |= {"poise", "torch", "mpmath", "markupsafe"}
    installed = packages_distributions()
    hidden = {module for module in installed if needed.isdisjoint(map(_plain, installed[module]))}
    command = [sys.executable, "-c", HIDE.format(hidden=hidden) + code]
    return subprocess.run(command, capture_output=True, text=True)


def _plain(distribution: str) -> str:
    return distribution.lower().replace("_", "-")


def test_the_parts_for_another_loop_need_torch_alone_and_a_trainer_says_what_it_needs() -> None:
    result = _run(OWN_LOOP)
    expected = r'PGPOTrainer: \w+ is not installed; run pip install "poise\[train\]"\n'
    assert result.returncode == 0 and re.fullmatch(expected, result.stdout), result.stderr


@pytest.mark.parametrize("command", ["pgpo", "report"])
def test_a_command_without_its_extra_says_what_to_install(command: str) -> None:
    result = _run(f"from poise.cli.main import main; sys.exit(main([{command!r}]))")
    last = result.stderr.splitlines()[-1]
    expected = rf'poise {command}: \w+ is not installed; run pip install "poise\[\w+\]"'
    assert result.returncode == 2 and re.fullmatch(expected, last), result.stderr


def test_the_command_line_itself_needs_nothing() -> None:
    code = "from poise.cli.main import main; sys.exit(main(['--help']))"
    assert _run(code).returncode == 0


def test_what_brings_a_library_is_what_the_project_declares() -> None:
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for extra, modules in EXTRAS.items():
        texts = declared["optional-dependencies"][extra]
        named = [re.split(r"[^\w-]", text)[0] for text in texts if not text.startswith("poise")]
        names = ["yaml" if name == "pyyaml" else name for name in named]
        own = [name for name in names if extra == "train" or name not in EXTRAS["train"]]
        assert sorted(modules) == sorted(own)


def test_another_error_is_nothing_to_install() -> None:
    assert what_to_install(ModuleNotFoundError("no trl.gone", name="trl.gone")) is None
    assert what_to_install(ModuleNotFoundError("no colour", name="colour")) is None
    assert what_to_install(ImportError("cannot import name", name="trl")) is None
