"""The direction space is what its formula says, written down another way, to 1e-10 in float64."""

from __future__ import annotations

import copy
import math
from itertools import pairwise, product
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor

from poise.iga.adapters import find_adapters
from poise.iga.direction_space import DECAY, _Sums, domain_directions
from poise.iga.domains import DomainBatch, Pass
from poise.iga.engine import GradientEngine
from poise.iga.settings import IGA
from tests.equivalence.iga_gradients import (
    Batch,
    Gradients,
    difference,
    engine_step,
    named,
    untie,
)
from tests.equivalence.iga_models import MODELS, llama, toy
from tests.equivalence.iga_reference import layer_of, require_base_gradients, to_factors
from tests.exact import in_float64
from tests.grids import grid

DIRECTIONS = IGA(space="direction")
FIRST = Batch.of([2, 0, 1, 0, 2, 0], number=4, seed=1)
SECOND = Batch.of([1, 1, 3, 0, 2, 0], number=4, seed=2)
THIRD = Batch.of([2, 0, 1, 0, 2, 0], number=4, seed=3)


class Oracle:
    """Sums of tokens by domain, projectors by a pseudo-inverse, gradients of whole weights."""

    def __init__(self, model: Any, tells_predicting: bool = False) -> None:
        self.tells_predicting = tells_predicting
        self.twin = copy.deepcopy(model)
        if getattr(self.twin, "is_gradient_checkpointing", False):
            self.twin.gradient_checkpointing_disable()
        self.adapters = find_adapters(self.twin)
        for adapter in self.adapters:
            untie(self.twin, adapter)
        require_base_gradients(self.twin, self.adapters)
        self.sums: dict[str, dict[tuple[int, int], tuple[Tensor, float]]] = {}  # by group, domain

    def step(self, batch: Batch) -> Gradients:
        """dA = s B^T G (I - P P^T), dB = s G (I - P P^T) A^T."""
        gradients, uses = self._pass(batch)
        pairs = []
        for adapter, gradient in zip(self.adapters, gradients, strict=True):
            differences = self._differences(adapter.name)
            if differences is not None:
                projector = torch.linalg.pinv(differences, rtol=1e-12) @ differences
                gradient = gradient - gradient @ projector
            pairs.append(to_factors(adapter, gradient))
        for name, inputs in uses.items():
            self._learn(name, inputs, batch)
        return named(self.adapters, pairs)

    def _pass(self, batch: Batch) -> tuple[list[Tensor], dict[str, list[Tensor]]]:
        """Gradients of the weights, and inputs of the uses of each layer whose output has one."""
        seen: dict[str, list[tuple[Tensor, Tensor]]] = {a.name: [] for a in self.adapters}
        layers = [layer_of(self.twin, adapter) for adapter in self.adapters]
        handles = []
        for adapter, layer in zip(self.adapters, layers, strict=True):

            def keep(_m: Any, args: Any, out: Tensor, name: str = adapter.name) -> None:
                seen[name].append((args[0].detach(), out))

            handles.append(layer.register_forward_hook(keep))
        losses = batch.losses(self.twin)
        for handle in handles:
            handle.remove()
        weights = [layer.get_base_layer().weight for layer in layers]
        uses = [(name, x, out) for name, own in seen.items() for x, out in own]
        loss = (DomainBatch(batch.domains, batch.counts).weights().to(losses) * losses).sum()
        found = torch.autograd.grad(loss, [*weights, *(out for *_, out in uses)], allow_unused=True)
        gradients = []
        for layer, weight, gradient in zip(layers, weights, found, strict=False):
            own = torch.zeros_like(weight) if gradient is None else gradient
            gradients.append(own.T if layer.fan_in_fan_out else own)
        inputs: dict[str, list[Tensor]] = {}
        for (name, x, _), gradient in zip(uses, found[len(weights) :], strict=True):
            if gradient is not None:
                rows = x.reshape(len(batch.domains), -1, x.shape[-1])
                inputs.setdefault(name, []).append(rows)
        return gradients, inputs

    def _learn(self, name: str, uses: list[Tensor], batch: Batch) -> None:
        old = self.sums.get(name, {})
        new = {k: (DECAY * s, DECAY * n) for k, (s, n) in old.items()}
        for x in uses:
            is_known = self.tells_predicting and x.shape[1] == batch.ids.shape[1]
            groups = batch.predicting.int() if is_known else x.new_zeros(x.shape[:2]).int()
            for key in product((0, 1), set(batch.domains.tolist())):
                tokens = x[(groups == key[0]) & (batch.domains == key[1])[:, None]]
                if len(tokens):
                    total, count = new.get(key, (0.0, 0.0))
                    new[key] = (total + tokens.sum(0), count + len(tokens))
        self.sums[name] = new

    def _differences(self, name: str) -> Tensor | None:
        """Between the means of the domains, group by group."""
        parts = []
        for group in (0, 1):
            sums = self.sums.get(name, {}).items()
            own = [total / count for (g, _), (total, count) in sums if g == group]
            parts += [mean - own[0] for mean in own[1:]]
        return torch.stack(parts) if parts else None


CASES = [(model, tells) for model in MODELS for tells in (False, True)]
# T5 takes as long as ten others.
QUICK = [(model, False) for model in MODELS if model != "t5: encoder and decoder"]
QUICK += [(model, True) for model in ("llama", "gpt2: transposed layers", "two lengths")]


@pytest.mark.parametrize(("model", "tells_predicting"), grid(CASES, QUICK))
def test_the_space_is_the_formula(model: str, tells_predicting: bool, device: torch.device) -> None:
    built = MODELS[model]().to(device)
    engine, oracle = GradientEngine(built, DIRECTIONS), Oracle(built, tells_predicting)
    with in_float64():
        for place, batch in enumerate((FIRST, SECOND, THIRD)):
            batch = batch.to(device)
            found = engine_step(engine, built, [batch], tells_predicting=tells_predicting)
            expected = oracle.step(batch)
            assert difference(found, expected) < 1e-10, place


@pytest.mark.parametrize("cuts", [[1, 2, 5], [1, 2, 3, 4, 5]])
def test_micro_batches_are_one_batch(cuts: list[int]) -> None:
    """By tokens, so that the loss is the same."""
    model = toy()
    engines = [GradientEngine(model, DIRECTIONS) for _ in range(2)]
    for batch in (FIRST, SECOND):
        whole = DomainBatch(batch.domains, batch.counts)
        parts = [batch.rows(a, b) for a, b in pairwise([0, *cuts, len(batch.ids)])]
        shares = [float(part.counts.sum() / whole.counts.sum()) for part in parts]
        found = engine_step(engines[0], model, parts, by_tokens=True, shares=shares)
        assert difference(found, engine_step(engines[1], model, [batch], by_tokens=True)) < 1e-10


def test_a_gradient_cannot_read_the_domain() -> None:
    """What the projected gradient makes of two domains' mean inputs is the same."""
    model = llama()
    engine = GradientEngine(model, DIRECTIONS)
    with in_float64():
        engine_step(engine, model, [FIRST])
        state = engine.state_dict()
        engine_step(engine, model, [SECOND])
    assert len(state) == len(engine.adapters)
    for adapter in engine.adapters:
        (running,) = state[adapter.name]
        seen = running[running[:, -1] > 0]
        means = seen[:, :-1] / seen[:, -1:]
        assert len(means) == 3
        update = adapter.down.weight.grad
        assert update is not None and bool(update.any())
        read = (means[1:] - means[:1]) @ update.T
        bound = (means[1:] - means[:1]).norm() * update.norm()
        assert float(read.norm()) < 1e-12 * float(bound)


def test_padding_is_no_token() -> None:
    """Rows that are padded to a longer width give the same directions and the same update."""
    model = llama()
    engines = [GradientEngine(model, DIRECTIONS) for _ in range(2)]
    with in_float64():
        for place, engine in enumerate(engines):
            pad = 5 * place
            ids = torch.cat([FIRST.ids, FIRST.ids.new_zeros(len(FIRST.ids), pad)], 1)
            mask = torch.cat([torch.ones_like(FIRST.ids), ids.new_zeros(len(ids), pad)], 1)
            with engine.collect(DomainBatch(FIRST.domains, FIRST.counts)):
                logits = model(ids, attention_mask=mask).logits[:, : FIRST.ids.shape[1]]
                engine.backward(torch.stack([logits[FIRST.domains == k].sum() for k in range(4)]))
            engine.finish()
    one, other = (engine.state_dict() for engine in engines)
    for name, running in one.items():
        torch.testing.assert_close(other[name], running, rtol=1e-12, atol=1e-12)


def test_directions_are_orthonormal_and_as_many_as_there_are() -> None:
    generator = torch.Generator().manual_seed(0)
    running = torch.randn(3, 1, 4, 9, generator=generator, dtype=torch.float64)
    running[..., -1] = 2.0
    running[1, 0, 3] = 0.0  # a domain that was never seen
    running[2, 0, 2] = running[2, 0, 1]  # two alike
    basis = domain_directions(running)
    squares = basis.transpose(1, 2) @ basis
    ranks = [3, 2, 2]
    for found, rank in zip(squares, ranks, strict=True):
        expected = torch.diag((torch.arange(3) < rank).double())
        torch.testing.assert_close(found, expected, atol=1e-12, rtol=0)


@pytest.mark.parametrize("smallest", [1.0, 1e-2, 1e-3])
def test_float32_has_the_directions_of_float64(smallest: float) -> None:
    """By another decomposition; also such as are small beside the largest, and beside the means."""
    generator = torch.Generator().manual_seed(0)
    scales = torch.logspace(0, math.log10(smallest), 4, dtype=torch.float64)
    parts = torch.randn(5, 2, 4, 64, generator=generator, dtype=torch.float64)
    offset = torch.randn(64, generator=generator, dtype=torch.float64)
    counts = torch.full((5, 2, 4, 1), 8.0, dtype=torch.float64)
    counts[1, 0, 3] = 0.0  # a domain without tokens
    counts[2, 1] = 0.0  # a group without any
    exact = torch.cat([(offset + scales[:, None] * parts) * counts, counts], 3).float()
    found, expected = domain_directions(exact), domain_directions(exact.double())
    assert found.dtype == torch.float32
    ranks = [6, 5, 3, 6, 6]
    for own, other, rank in zip(found, expected, ranks, strict=True):
        torch.testing.assert_close(
            own.double() @ own.double().T, other @ other.T, rtol=0, atol=1e-6 / smallest
        )
        assert [int((basis != 0).any(0).sum()) for basis in (own, other)] == [rank, rank]
        kept = own[:, :rank]
        torch.testing.assert_close(kept.T @ kept, torch.eye(rank), rtol=0, atol=1e-6)


def test_layers_of_one_input_have_its_sums_and_others_their_own() -> None:
    """Inputs in the same memory, one after the other, are not one input."""
    batch = DomainBatch(torch.tensor([0, 1]), torch.tensor([3.0, 3.0]))
    x = torch.arange(24.0).view(2, 3, 4)
    sums = _Sums(Pass(batch))
    one = sums.of(x)
    assert sums.of(x.detach()) is one
    assert torch.equal(sums.of(x[:, :2])[0, :, -1], torch.tensor([2.0, 2.0]))
    assert torch.equal(sums.of(x.clone()), one)
    assert torch.equal(sums.of(x * 2)[..., :-1], one[..., :-1] * 2)
    assert torch.equal(one[0, :, :-1], x.sum(1))


def test_a_run_is_of_one_kind_of_batches_and_of_one_model() -> None:
    model = toy()
    engine = GradientEngine(model, DIRECTIONS)
    engine_step(engine, model, [FIRST], tells_predicting=True)
    with pytest.raises(ValueError, match="predicting for all of them or for none"):
        engine_step(engine, model, [SECOND])
    with pytest.raises(ValueError, match="as many domains in every batch"):
        engine_step(engine, model, [Batch.of([1, 0], number=2)], tells_predicting=True)
    with pytest.raises(ValueError, match="expected no such entry"):
        engine.load_state_dict({"nowhere": torch.zeros(1, 4, 9)})
    with pytest.raises(ValueError, match=r"expected shape \(None, None, 9\)"):
        engine.load_state_dict({"base_model.model.inner": torch.zeros(1, 4, 7)})


def test_more_directions_than_inputs_are_all_of_them() -> None:
    """Twelve domains in two groups of tokens, in layers that are four wide."""
    model, batch = toy(), Batch.of(list(range(12)), number=12)
    engine = GradientEngine(model, DIRECTIONS)
    for _ in range(2):
        found = engine_step(engine, model, [batch], tells_predicting=True)
    assert all(float(gradient.norm()) < 1e-10 for gradient in found.values())


def test_a_step_that_overflows_teaches_nothing() -> None:
    """Else the running sums, and all gradients after it, would never be finite again."""
    model = llama()
    engine = GradientEngine(model, DIRECTIONS)
    embedding = model.get_input_embeddings().weight
    with in_float64():
        engine_step(engine, model, [FIRST])
        before = {name: sums.clone() for name, sums in engine.state_dict().items()}
        kept = embedding.detach().clone()
        embedding.data.mul_(torch.finfo(embedding.dtype).max)
        engine_step(engine, model, [SECOND])
        embedding.data.copy_(kept)
        after = engine.state_dict()
        found = engine_step(engine, model, [THIRD])
    assert all(sums.isfinite().all() for sums in after.values())
    overflown = [name for name in before if torch.equal(after[name], DECAY * before[name])]
    assert overflown
    assert all(gradient.isfinite().all() for gradient in found.values())


def test_a_domain_that_stays_away_is_forgotten() -> None:
    """Its mean must not be divided by what is left of its count."""
    generator = torch.Generator().manual_seed(0)
    running = torch.randn(1, 1, 3, 9, generator=generator, dtype=torch.float64) + 5
    running[..., -1] = 10.0
    without = running.clone()
    without[0, 0, 2] = 0.0
    gone = running.clone()
    gone[0, 0, 2] *= DECAY**700
    projectors = [b @ b.transpose(1, 2) for b in map(domain_directions, (without, gone))]
    torch.testing.assert_close(*projectors, rtol=1e-12, atol=1e-12)


def test_sums_of_half_precision_are_in_float32() -> None:
    """In bfloat16 a sum rounds off what domains differ in; in float16 these would overflow."""
    config = LoraConfig(target_modules=["0"])
    model = get_peft_model(torch.nn.Sequential(torch.nn.Linear(4, 4)), config).bfloat16()
    engine = GradientEngine(model, DIRECTIONS)
    x = torch.full((2, 512, 4), 300.0, dtype=torch.bfloat16)
    x[1] += 2.0
    with engine.collect(DomainBatch(torch.tensor([0, 1]), torch.tensor([512.0, 512.0]))):
        engine.backward(model(x).sum((1, 2)))
    engine.finish()
    (running,) = engine.state_dict().values()
    assert running[0].tolist() == [[512 * 300.0] * 4 + [512.0], [512 * 302.0] * 4 + [512.0]]
