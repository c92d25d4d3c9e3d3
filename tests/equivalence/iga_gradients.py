"""Gradients per domain by the engine, and by K backward passes, on the same batches."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from poise.iga.adapters import Adapter, find_adapters
from poise.iga.domains import DomainBatch
from poise.iga.engine import GradientEngine
from poise.iga.settings import IGA
from tests.equivalence.iga_reference import base_weight, reference_gradients, require_base_gradients
from tests.equivalence.iga_toys import VOCABULARY

Gradients = dict[str, Tensor]


@dataclass(frozen=True)
class Batch:
    """Sequences, their domains, and which tokens have a loss."""

    ids: Tensor
    domains: Tensor
    kept: Tensor
    number: int

    @staticmethod
    def of(domains: Sequence[int], number: int, length: int = 9, seed: int = 0) -> Batch:
        generator = torch.Generator().manual_seed(seed)
        shape = (len(domains), length)
        ids = torch.randint(2, VOCABULARY, shape, generator=generator)
        kept = torch.rand(shape, generator=generator) < 0.6
        kept[:, 0] = False
        kept[:, -1] = True
        return Batch(ids, torch.tensor(domains), kept, number)

    def to(self, device: torch.device) -> Batch:
        tensors = (t.to(device) for t in (self.ids, self.domains, self.kept))
        return Batch(*tensors, self.number)

    def rows(self, start: int, end: int) -> Batch:
        part = slice(start, end)
        return Batch(self.ids[part], self.domains[part], self.kept[part], self.number)

    @property
    def predicting(self) -> Tensor:
        """Tokens before those with a loss."""
        return torch.cat([self.kept[:, 1:], torch.zeros_like(self.kept[:, :1])], 1)

    @property
    def counts(self) -> Tensor:
        tokens = self.kept.sum(1).double()
        return tokens.new_zeros(self.number).index_add(0, self.domains, tokens)

    def losses(self, model: nn.Module) -> Tensor:
        """(K,) mean losses of the domains; 0 for those without tokens."""
        is_pair = hasattr(getattr(model, "config", None), "decoder_start_token_id")
        is_pair = is_pair and getattr(model.config, "is_encoder_decoder", False)
        extra = {"decoder_input_ids": self.ids.roll(1, 1)} if is_pair else {}
        output = model(self.ids, **extra)
        logits = output if isinstance(output, Tensor) else output.logits
        shifted = logits if is_pair else logits[:, :-1]
        labels, kept = (t if is_pair else t[:, 1:] for t in (self.ids, self.kept))
        tokens = cross_entropy(shifted.transpose(1, 2), labels, reduction="none") * kept
        sums = tokens.new_zeros(self.number).index_add(0, self.domains, tokens.sum(1))
        return sums / self.counts.clamp_min(1).to(sums)


def named(adapters: Sequence[Adapter], pairs: Sequence[tuple[Tensor, Tensor]]) -> Gradients:
    """Gradients of the factors that are trained, by name."""
    return {
        f"{adapter.name}.{part}": gradient
        for adapter, pair in zip(adapters, pairs, strict=True)
        for part, parameter, gradient in zip("AB", adapter.parameters, pair, strict=True)
        if parameter.requires_grad
    }


def engine_step(
    engine: GradientEngine,
    model: nn.Module,
    batches: Sequence[Batch],
    by_tokens: bool = False,
    shares: Sequence[float] | None = None,
    tells_predicting: bool = False,
) -> Gradients:
    """What the engine leaves in `.grad` after a step of some micro-batches."""
    model.zero_grad()
    shares = shares or [1 / len(batches)] * len(batches)
    for batch, share in zip(batches, shares, strict=True):
        predicting = batch.predicting if tells_predicting else None
        with engine.collect(DomainBatch(batch.domains, batch.counts, predicting)):
            engine.backward(batch.losses(model), "tokens" if by_tokens else "equal", share)
    engine.finish()
    pairs = [
        tuple(torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in a.parameters)
        for a in engine.adapters
    ]
    return named(engine.adapters, pairs)  # type: ignore[arg-type]


def oracle_step(model: nn.Module, batch: Batch, method: IGA, by_tokens: bool = False) -> Gradients:
    """The same by K backward passes, on a copy in which weights are not tied."""
    twin = copy.deepcopy(model)
    twin.zero_grad()
    if getattr(twin, "is_gradient_checkpointing", False):
        twin.gradient_checkpointing_disable()
    adapters = find_adapters(twin)
    for adapter in adapters:
        untie(twin, adapter)
    require_base_gradients(twin, adapters)
    weights = DomainBatch(batch.domains, batch.counts).weights("tokens" if by_tokens else "equal")
    pairs = reference_gradients(twin, adapters, batch.losses(twin), weights, method)
    return named(adapters, pairs)


def untie(model: nn.Module, adapter: Adapter) -> None:
    """Gives an adapter's layer a weight that no other layer has."""
    weight = base_weight(model, adapter)
    for module in model.modules():
        is_embedding = isinstance(module, nn.Embedding)
        if module._parameters.get("weight") is weight and not is_embedding:
            module.weight = nn.Parameter(weight.detach().clone())


def difference(found: Gradients, expected: Gradients) -> float:
    """The largest relative difference of a factor's gradient."""
    assert found.keys() == expected.keys()
    assert all(bool(g.isfinite().all()) for both in (found, expected) for g in both.values())
    return max(
        float((found[name] - expected[name]).norm() / expected[name].norm().clamp_min(1e-30))
        for name in expected
    )
