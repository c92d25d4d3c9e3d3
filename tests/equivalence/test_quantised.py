"""LoRA on quantised layers: the engine never reads the base weight, so it is as exact there."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM

from poise.iga.adapters import find_adapters
from poise.iga.domains import DomainBatch
from poise.iga.engine import GradientEngine
from poise.iga.settings import IGA
from tests.equivalence.iga_gradients import Batch, Gradients, difference, engine_step, named
from tests.equivalence.iga_models import SMALL
from tests.equivalence.iga_reference import combined, to_factors

bnb = pytest.importorskip("bitsandbytes")
TARGETS = ["q_proj", "v_proj", "up_proj", "down_proj"]
# Quantised layers compute in float32, whatever comes in. Four domains weigh a quarter each, which
# does not round, so that a gradient that goes through them is the same by domain and in the sum.
BATCH = Batch.of([2, 0, 1, 3, 2, 0], number=4, seed=1)
METHODS = {
    "weight": IGA(space="weight", projection="exact"),
    "mask alone": IGA(space="weight", projection="none", tau=3.0),
    "factor": IGA(space="factor"),
}
BITS = (4, 8)


def quantise(layer: nn.Linear, bits: int) -> nn.Module:
    if bits == 4:
        made = bnb.nn.Linear4bit(
            layer.in_features, layer.out_features, bias=False, compute_dtype=torch.float32
        )
    else:
        made = bnb.nn.Linear8bitLt(
            layer.in_features, layer.out_features, bias=False, has_fp16_weights=False
        )
    made.load_state_dict({"weight": layer.weight.data})
    return made.to("cpu")  # where it is quantised


def quantised(bits: int) -> Any:
    """A Llama, four kinds of whose layers are quantised, with random factors in float64."""
    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(**SMALL)).float()
    for name, layer in list(model.named_modules()):
        parent, _, own = name.rpartition(".")
        if own in TARGETS:
            setattr(model.get_submodule(parent), own, quantise(layer, bits))
    setattr(model, f"is_loaded_in_{bits}bit", True)
    config = LoraConfig(r=3, lora_alpha=5, target_modules=TARGETS, init_lora_weights=False)
    model = get_peft_model(model, config)
    for module in model.modules():  # model.double() would take quantised weights for numbers
        if not isinstance(module, bnb.nn.Linear4bit | bnb.nn.Linear8bitLt):
            for parameter in module.parameters(recurse=False):
                parameter.data = parameter.data.double()
            for buffer_name, buffer in module.named_buffers(recurse=False):
                setattr(module, buffer_name, buffer.double())
    return model


class Seen:
    """Inputs of A, (sequences, tokens, in), and what B puts out, of every adapter in a forward."""

    def __init__(self, model: Any, batch: Batch) -> None:
        self.adapters = find_adapters(model)
        self.inputs: list[Tensor] = []
        self.outputs: list[Tensor] = []
        handles = []
        for adapter in self.adapters:
            handles += [
                adapter.down.register_forward_hook(lambda _m, x, _y: self.inputs.append(x[0])),
                adapter.up.register_forward_hook(lambda _m, _x, y: self.outputs.append(y)),
            ]
        self.losses = batch.losses(model)
        for handle in handles:
            handle.remove()

    def gradients(self, loss: Tensor) -> list[Tensor]:
        """Of a loss by each whole matrix W: the layers compute y = W0 x + s B A x."""
        deltas = torch.autograd.grad(loss, self.outputs, retain_graph=True)
        return [
            torch.einsum("bto,bti->oi", delta / adapter.scaling, x.detach())
            for adapter, delta, x in zip(self.adapters, deltas, self.inputs, strict=True)
        ]


def expected_of(model: Any, batch: Batch, method: IGA) -> Gradients:
    seen, weights = Seen(model, batch), DomainBatch(batch.domains, batch.counts).weights()
    by_domain = [seen.gradients(loss) for loss in seen.losses]
    pairs = [
        combined(adapter, parts, weights, method)
        for adapter, *parts in zip(seen.adapters, *by_domain, strict=True)
    ]
    return named(seen.adapters, pairs)


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("method", METHODS)
def test_masks_equal_one_backward_pass_for_each_domain(method: str, bits: int) -> None:
    model = quantised(bits)
    found = engine_step(GradientEngine(model, METHODS[method]), model, [BATCH])
    assert difference(found, expected_of(model, BATCH, METHODS[method])) < 1e-10


@pytest.mark.parametrize("bits", BITS)
def test_directions_equal_their_formula(bits: int) -> None:
    """G (I - P P^T), P the directions in which the domains' mean inputs differed a step ago."""
    model, before = quantised(bits), Batch.of([1, 1, 3, 0, 2, 0], number=4, seed=2)
    engine = GradientEngine(model, IGA(space="direction"))
    engine_step(engine, model, [before])
    found = engine_step(engine, model, [BATCH])
    inputs, seen = [x.detach() for x in Seen(model, before).inputs], Seen(model, BATCH)
    loss = (DomainBatch(BATCH.domains, BATCH.counts).weights() * seen.losses).sum()
    expected = []
    for adapter, x, gradient in zip(seen.adapters, inputs, seen.gradients(loss), strict=True):
        means = [x[before.domains == k].flatten(0, 1).mean(0) for k in range(before.number)]
        differences = torch.stack([mean - means[0] for mean in means[1:]])
        projector = torch.linalg.pinv(differences, rtol=1e-12) @ differences
        expected.append(to_factors(adapter, gradient - gradient @ projector))
    assert difference(found, named(seen.adapters, expected)) < 1e-10
