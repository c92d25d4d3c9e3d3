"""Two ranks in factor space, the engine alone: the gradients of one rank with all sequences."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from poise.iga.engine import GradientEngine
from poise.iga.settings import IGA
from tests.equivalence.iga_gradients import Batch, Gradients, difference, engine_step, named
from tests.equivalence.iga_models import toy
from tests.processes import run_ranks

# Unequal parts: rank 0 has no domain 1, rank 1 has no domain 2; nobody has domain 3.
WHOLE = Batch.of([2, 0, 0, 1, 1, 0, 1, 0], number=4)
PARTS = [[WHOLE.rows(0, 2), WHOLE.rows(2, 3)], [WHOLE.rows(3, 7), WHOLE.rows(7, 8)]]


def _steps(parts: list[Batch]) -> list[Gradients]:
    model, found = toy(), []
    for by_tokens in (False, True):
        engine = GradientEngine(model, IGA(space="factor"))
        found += [engine_step(engine, model, parts, by_tokens) for _ in range(2)]
    return found


def _rank_main(folder: str) -> None:
    dist.init_process_group("gloo")
    rank = dist.get_rank()
    torch.save(_steps(PARTS[rank]), f"{folder}/rank{rank}.pt")
    torch.save(_alone(rank), f"{folder}/alone{rank}.pt")
    with pytest.raises(ValueError, match="'retraction': expected one process, found 2"):
        GradientEngine(toy(), IGA(space="weight", update="retraction"))


def _alone(rank: int) -> Gradients:
    """A step in which rank 1 has no loss, as where all of its labels are masked."""
    model = toy()
    engine = GradientEngine(model, IGA(space="factor"))
    if rank == 0:
        return engine_step(engine, model, [WHOLE])
    engine.finish()
    pairs = [[p.grad for p in adapter.parameters] for adapter in engine.adapters]
    return named(engine.adapters, pairs)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What two ranks have found."""
    path = tmp_path_factory.mktemp("ranks")
    run_ranks(2, _rank_main, str(path))
    return path


def test_a_rank_without_loss_takes_part(folder: Path) -> None:
    first, second = (torch.load(folder / f"alone{r}.pt", weights_only=True) for r in range(2))
    model = toy()
    expected = engine_step(GradientEngine(model, IGA(space="factor")), model, [WHOLE])
    assert all(torch.equal(first[name], second[name]) for name in expected)
    # Ranks average: the loss of one rank of two has half a share.
    assert difference({name: 2 * g for name, g in first.items()}, expected) < 1e-12


def test_two_gloo_ranks_are_one_rank(folder: Path) -> None:
    first, second = (torch.load(folder / f"rank{r}.pt", weights_only=True) for r in range(2))
    for one, two, expected in zip(first, second, _steps([WHOLE]), strict=True):
        assert all(torch.equal(one[name], two[name]) for name in expected)
        assert difference(one, expected) < 1e-12
