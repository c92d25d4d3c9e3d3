"""Modules that use a linear layer in ways that are easy to get wrong."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

VOCABULARY = 23
WIDTH = 8


class Toy(nn.Module):
    """Tokens to logits through two linear layers; a token sees those before it."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(VOCABULARY, WIDTH)
        self.inner = nn.Linear(WIDTH, WIDTH)
        self.other = nn.Linear(WIDTH, WIDTH)
        self.head = nn.Linear(WIDTH, VOCABULARY)

    def body(self, x: Tensor) -> Tensor:
        return x + self.other(torch.tanh(self.inner(x)))

    def forward(self, ids: Tensor) -> Tensor:
        steps = torch.arange(1, ids.shape[1] + 1, device=ids.device)[:, None]
        return self.head(self.body(self.embed(ids).cumsum(1) / steps))


class Shared(Toy):
    """As ALBERT: one layer, three times."""

    def body(self, x: Tensor) -> Tensor:
        for _ in range(3):
            x = x + torch.tanh(self.inner(x))
        return self.other(x)


class SharedCheckpointed(Toy):
    """The same, each time recomputed in the backward pass."""

    use_reentrant = False

    def body(self, x: Tensor) -> Tensor:
        x = x.detach().requires_grad_()
        for _ in range(3):
            x = checkpoint(self._once, x, use_reentrant=self.use_reentrant)
        return self.other(x)

    def _once(self, x: Tensor) -> Tensor:
        return x + torch.tanh(self.inner(x))


class SharedReentrant(SharedCheckpointed):
    use_reentrant = True


class TwoLengths(Toy):
    """One layer on sequences of two lengths."""

    def body(self, x: Tensor) -> Tensor:
        return self.other(torch.tanh(self.inner(x)) + self.inner(x[:, :3]).mean(1, keepdim=True))


class Unused(Toy):
    """A layer runs, and its output is dropped."""

    def body(self, x: Tensor) -> Tensor:
        self.other(x)
        return torch.tanh(self.inner(x))


class Bypassed(Toy):
    """As fused kernels: the factors of one layer are read, and their modules passed over."""

    def body(self, x: Tensor) -> Tensor:
        return self.other(torch.tanh(self.bypass(x)))

    def bypass(self, x: Tensor) -> Tensor:
        layer: Any = self.inner
        down, up = (part["default"].weight for part in (layer.lora_A, layer.lora_B))
        inner: Tensor = layer.base_layer(x) + x @ down.T @ up.T * layer.scaling["default"]
        return inner


class BypassedInPart(Bypassed):
    """The layer is called in one segment and passed over in another, each with its own backward."""

    def body(self, x: Tensor) -> Tensor:
        x = checkpoint(self.bypass, x.detach().requires_grad_(), use_reentrant=True)
        called: Tensor = checkpoint(lambda y: self.other(self.inner(y)), x, use_reentrant=True)
        return called


class Flat(Toy):
    """One layer on (batch * tokens, features)."""

    def body(self, x: Tensor) -> Tensor:
        return self.other(torch.tanh(self.inner(x.flatten(0, 1))).view_as(x))


class Routed(Toy):
    """As experts: one layer on twice as many rows as there are tokens, in an order of its own."""

    def body(self, x: Tensor) -> Tensor:
        rows = x.flatten(0, 1)
        order = torch.arange(2 * len(rows)).flip(0) % len(rows)
        routed = torch.tanh(self.inner(rows[order]))
        return self.other(torch.zeros_like(rows).index_add(0, order, routed).view_as(x))


class Pooled(Toy):
    """One layer on (batch, features)."""

    def body(self, x: Tensor) -> Tensor:
        return self.other(x + torch.tanh(self.inner(x.mean(1)))[:, None])


class Images(Toy):
    """One layer on (batch, height, width, features)."""

    def body(self, x: Tensor) -> Tensor:
        return self.other(torch.tanh(self.inner(torch.stack([x, x * x, -x], 1))).sum(1))


class Slices(Toy):
    """One layer on views that are not contiguous."""

    def body(self, x: Tensor) -> Tensor:
        return self.other(torch.tanh(self.inner(x.flip(-1).transpose(1, 2).transpose(1, 2))))


class Frozen(Toy):
    """The first layer's input has no gradient of its own, the second's output is in place."""

    def body(self, x: Tensor) -> Tensor:
        return torch.tanh_(self.other(self.inner(x.detach()))) + x
