"""The gradient of a tiled loss, added up tile by tile in the forward pass."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import get_gradient_edge

from poise.loss.tiles import Head, working_dtype


def trainable_parameters(head: Head, declared: Sequence[Tensor] | None) -> tuple[Tensor, ...]:
    """The tensors of the head that want a gradient.

    Args:
        head: The output head.
        declared: What the caller names; by default a module's own parameters, nothing for a
            plain function.
    """
    if declared is None:
        declared = list(head.parameters()) if isinstance(head, nn.Module) else []
    return tuple(parameter for parameter in declared if parameter.requires_grad)


def power_of_two_scale(weights: Tensor) -> Tensor:
    """The smallest power of two above all |weights|, 2^-100 at least (scalar; 1 for no weights).

    Gradients are taken for weights / scale, and the scale is applied in the backward. Weights of
    1 / tokens would otherwise push a float16 head's gradients below its smallest number before
    the loss scaler can lift them. A power of two changes no other digit.
    """
    if weights.numel() == 0:
        return weights.new_ones(())
    exponent = torch.frexp(weights.abs().max()).exponent.clamp(min=-100)
    return torch.ldexp(weights.new_ones(()), exponent)


class TileGradients:
    """Gradients of a sum over tiles with respect to the hidden states and the head's parameters.

    Choice: the head's gradients add up in float32 (float64 for float64 parameters), whatever the
    parameters' precision, and are returned in the parameters' dtype: a bfloat16 sum over many
    tiles would lose the later ones.
    """

    def __init__(self, hidden: Tensor, parameters: Sequence[Tensor]) -> None:
        self._parameters = list(parameters)
        self._hidden = torch.zeros_like(hidden) if hidden.requires_grad else None
        self._sums: list[Tensor | None] = [None] * len(parameters)
        self._tiles = 0

    def add(self, rows: Tensor, hidden: Tensor, objective: Tensor) -> None:
        """Add a tile's gradient.

        Args:
            rows: The tile's places among all tokens [n].
            hidden: The tile's hidden states [n, H], a leaf.
            objective: The tile's part of the sum, scalar.
        """
        inputs = [hidden, *self._parameters] if hidden.requires_grad else self._parameters
        if self._tiles == 0:
            _refuse_undeclared(objective, inputs)
        self._tiles += 1
        gradients = list(torch.autograd.grad(objective, inputs, allow_unused=True))
        if self._hidden is not None:
            tile = gradients.pop(0)
            if tile is not None:
                self._hidden[rows] = tile
        for place, gradient in enumerate(gradients):
            if gradient is not None:
                self._add_parameter(place, gradient)

    def _add_parameter(self, place: int, gradient: Tensor) -> None:
        total = self._sums[place]
        if total is None:
            total = torch.zeros_like(gradient, dtype=working_dtype(gradient))
            self._sums[place] = total
        total += gradient

    def total(self) -> tuple[Tensor | None, ...]:
        """The gradients of hidden states and parameters, each in its tensor's dtype.

        None where nothing reached a tensor, as autograd has it; but zeros where there was no tile
        at all, so that a rank with an empty mask takes part in the others' reduction.
        """
        if self._tiles == 0:
            return (self._hidden, *(torch.zeros_like(p) for p in self._parameters))
        sums = (
            None if total is None else total.to(parameter.dtype)
            for total, parameter in zip(self._sums, self._parameters, strict=True)
        )
        return (self._hidden, *sums)


def _refuse_undeclared(objective: Tensor, inputs: Sequence[Tensor]) -> None:
    """Raise where the head reaches a trainable tensor whose gradient would be lost silently."""
    declared = {get_gradient_edge(tensor).node for tensor in inputs}
    pending: list[Any] = [objective.grad_fn]
    seen = set(declared)
    while pending:
        node = pending.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if hasattr(node, "variable"):
            raise ValueError(
                "The student head depends on a trainable tensor of shape "
                f"{list(node.variable.shape)} that is not among its parameters, so its gradient "
                "would be lost. Name all of them in head_parameters, or pass an nn.Module."
            )
        pending.extend(following for following, _ in node.next_functions)
