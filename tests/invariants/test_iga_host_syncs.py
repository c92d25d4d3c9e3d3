"""How often a step makes the host wait grows with neither layers nor domains nor tiles."""

from __future__ import annotations

from collections import Counter
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import LlamaForCausalLM

from poise import IGAConfig, IGATrainer
from poise.iga import adapters, mask
from poise.iga.baselines import make_baseline
from poise.iga.domains import DomainBatch
from poise.iga.engine import GradientEngine
from poise.iga.settings import IGA, Aggregator
from tests.equivalence.iga_gradients import Batch, engine_step
from tests.equivalence.iga_models import llama
from tests.grids import grid
from tests.host_syncs import HostSyncs
from tests.tiny import iga_run, tiny_config, tiny_isomers, tiny_tokenizer

# torch itself waits inside of eigh and of an SVD, once a matrix, to see whether they have failed.
TORCHS_OWN = ("eigh", "svd")
METHODS: dict[str, IGA | str] = {
    "weight": IGA(space="weight"),
    "exact": IGA(space="weight", projection="exact"),
    "weight, no projection": IGA(space="weight", projection="none"),
    "factor": IGA(space="factor"),
    "direction": IGA(space="direction"),
    "and_mask": "and_mask",
    "sand_mask": "sand_mask",
}
SIZES: dict[str, dict[str, int]] = {
    "layers": {"layers": 3},
    "domains": {"domains": 4},
    "tiles": {"tile": 16},
}


@cache
def _engine_syncs(
    method: str, layers: int = 1, domains: int = 2, tile: int = 1 << 17
) -> Counter[str]:
    """Of the engine's second step, with two micro-batches and its statistics."""
    model = llama(config={"num_hidden_layers": layers})
    named = METHODS[method]
    made = make_baseline(named) if isinstance(named, str) else named
    assert isinstance(made, IGA | Aggregator)
    engine = GradientEngine(model, made)
    order = [*range(domains), *range(domains)]  # no domain's rows are neighbours
    batches = [Batch.of(order, domains), Batch.of(order, domains, seed=1)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mask, "_CPU_TILE", tile)
        engine_step(engine, model, batches)
        with HostSyncs() as syncs:
            engine_step(engine, model, batches)
            engine.statistics()
    return _without_torchs_own(syncs)


def _without_torchs_own(syncs: HostSyncs) -> Counter[str]:
    return Counter({kind: n for kind, n in syncs.counts.items() if kind not in TORCHS_OWN})


# Each method with one size, each size with one method.
CASES = [(method, larger) for method in METHODS for larger in SIZES]
QUICK = [(method, "layers") for method in METHODS] + [("weight", larger) for larger in SIZES]


@pytest.mark.parametrize(("method", "larger"), grid(CASES, QUICK))
def test_the_engine_waits_no_more_for_a_larger_step(method: str, larger: str) -> None:
    one, many = (_engine_syncs(method, **sizes) for sizes in ({}, SIZES[larger]))
    assert one == many
    assert sum(one.values()) <= 10


# Plain SGD, as Adam on a CPU reads a step from each parameter; three steps, logged.
RUN: dict[str, Any] = {"optim": "sgd", "max_steps": 3}
TRAINERS: dict[str, dict[str, Any]] = {
    "weight": {"projection": "none"},
    "factor": {"space": "factor", "gradient_accumulation_steps": 2},
    "fishr": {"method": "fishr"},
}


def _trainer_syncs(folder: Path, settings: dict[str, Any], layers: int, domains: int) -> Any:
    trainer = IGATrainer(
        LlamaForCausalLM(tiny_config(num_hidden_layers=layers)),
        IGAConfig(
            str(folder), **iga_run(RUN | settings | {"per_device_train_batch_size": 2 * domains})
        ),
        train_dataset=tiny_isomers(16, ("law", "science", "sport", "art")[:domains]),
        processing_class=tiny_tokenizer(),
        peft_config=LoraConfig(r=2, target_modules=["q_proj", "down_proj"]),
    )
    with HostSyncs() as syncs:
        trainer.train()
    return _without_torchs_own(syncs)


@pytest.mark.parametrize("name", TRAINERS)
def test_a_run_waits_no_more_for_a_larger_model_or_more_domains(name: str, tmp_path: Path) -> None:
    one = _trainer_syncs(tmp_path / "one", TRAINERS[name], layers=1, domains=2)
    assert one == _trainer_syncs(tmp_path / "many", TRAINERS[name], layers=3, domains=4)


class _NoFloat64(TorchDispatchMode):
    """Like a device without float64."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if any(getattr(x, "dtype", None) == torch.float64 for x in tree_leaves(result)):
            raise TypeError(f"{func} makes float64")  # as MPS does
        return result


@pytest.mark.parametrize(
    "method",
    [IGA(space="weight"), IGA(space="factor"), IGA(space="direction")],
    ids=lambda method: method.space,
)
def test_a_model_in_float32_needs_no_float64(method: IGA) -> None:
    model, batch = llama().float(), Batch.of([1, 0, 1], 2)
    engine, counts = GradientEngine(model, method), batch.counts.long()
    adapters.widest_dtype.cache_clear()
    with _NoFloat64():
        with engine.collect(DomainBatch(batch.domains, counts)):
            engine.backward(model(batch.ids).logits.square().mean().expand(2))
        engine.finish()
    adapters.widest_dtype.cache_clear()
