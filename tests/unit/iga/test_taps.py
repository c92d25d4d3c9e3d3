"""Taps see inputs and output gradients, change nothing, and go away."""

from __future__ import annotations

import weakref

import pytest
import torch
from torch import Tensor, nn

from poise.iga.domains import DomainBatch, Pair, Pass

Seen = list[Pair]


def _path() -> tuple[nn.Sequential, Tensor]:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 2), nn.Linear(2, 3)), torch.randn(5, 4, requires_grad=True)


def _pass(sequences: int = 1, model: nn.Module | None = None) -> Pass:
    """One whose loss is known."""
    batch = DomainBatch(torch.zeros(sequences, dtype=torch.long), torch.ones(1))
    watched = Pass(batch, model=model)
    watched.weigh(torch.zeros(1))
    return watched


def _is_bare(model: nn.Module) -> bool:
    hooks = [m._forward_hooks or m._forward_pre_hooks for m in model.modules()]
    return not any(hooks) and not any(p._backward_hooks for p in model.parameters())


def test_a_tap_sees_the_input_and_the_gradient_of_the_output() -> None:
    """And changes neither output nor gradients."""
    model, x = _path()
    plain = model(x)
    (expected,) = torch.autograd.grad((plain**2).sum(), [x])
    seen: Seen = []
    with _pass() as hooks:
        hooks.watch("", model[0], model[1], (), seen.append)
        y = model(x)
        (found,) = torch.autograd.grad((y**2).sum(), [x])
    ((source, delta),) = seen
    assert torch.equal(source, x)
    torch.testing.assert_close(delta, 2 * y)
    assert torch.equal(plain, y)
    assert torch.equal(found, expected)


def test_an_input_by_keyword_is_seen() -> None:
    class Layer(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x)

    layer, x, seen = Layer(4, 4), torch.randn(2, 4), []
    with _pass() as hooks:
        hooks.watch("", layer, layer, (), seen.append)
        layer(x=x).sum().backward()
    assert torch.equal(seen[0][0], x)


def test_lengths_are_those_of_the_models_inputs_and_of_layers() -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(3, 3)

        def forward(self, ids: Tensor, mask: Tensor, embeddings: Tensor) -> Tensor:
            x = embeddings.new_ones(2, 4, 5, 3)
            return torch.stack([self.layer(x).sum(), self.layer(x.flatten(0, 2)).sum()])

    model = Model()
    with _pass(2, model) as hooks:
        hooks.watch("", model.layer, model.layer, (), lambda pair: None)
        assert hooks.lengths == {1}
        model(torch.ones(2, 7), mask=torch.ones(3, 8), embeddings=torch.ones(2, 9, 3))
    assert hooks.lengths == {1, 7, 9, 20}
    assert _is_bare(model)


def test_an_end_without_its_beginning_is_passed_over() -> None:
    model, x = _path()
    with _pass() as hooks:
        hooks.watch("", model[0], model[1], (), lambda pair: pytest.fail("seen"))
        model[1](x[:, :2]).sum().backward()


def test_a_path_that_was_interrupted_begins_anew() -> None:
    model, x = _path()
    seen: Seen = []
    with _pass() as hooks:
        hooks.watch("", model[0], model[1], (), seen.append)
        model[0](torch.zeros(1, 4))  # and never the second
        model(x).sum().backward()
    assert torch.equal(seen[0][0], x)


def test_inputs_are_freed_with_the_graph() -> None:
    model, _ = _path()
    with _pass() as hooks:
        hooks.watch("", model[0], model[1], (), lambda pair: None)
        x = torch.randn(5, 4)
        held = weakref.ref(x)
        model(x).sum().backward()
        del x
        assert held() is None
