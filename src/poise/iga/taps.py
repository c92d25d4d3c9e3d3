"""Sees what goes into a pair of modules and what gradient comes back, in one backward pass."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

Sink = Callable[[Tensor, Tensor], None]


class _Tap(torch.autograd.Function):
    """The identity on an output; its backward hands (input, gradient of the output) to a sink.

    The input is saved as autograd saves its own, so that activation checkpointing recomputes it,
    and a tensor that autograd keeps anyway is not kept twice.
    """

    @staticmethod
    def forward(ctx: Any, output: Tensor, source: Tensor, sink: Sink) -> Tensor:
        ctx.save_for_backward(source)
        ctx.sink = sink
        return output.view_as(output)

    @staticmethod
    @torch.autograd.function.once_differentiable  # type: ignore[misc]
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        (source,) = ctx.saved_tensors
        ctx.sink(source, gradient)
        return gradient, None, None


class Hooks:
    """Owns hooks: removes them all at the end of a `with`, also after an exception.

    Args:
        sequences: in the batch.
    """

    def __init__(self, sequences: int = 0) -> None:
        self._sequences = sequences
        self._handles: list[Any] = []
        # Tokens that a sequence has, as far as seen: rows of (batch * tokens, features) need it.
        self.lengths: set[int] = {1}
        self._unseen: list[tuple[str, Tensor]] = []
        self._masks: list[Tensor] = []

    def __enter__(self) -> Hooks:
        return self

    def __exit__(self, *error: object) -> None:
        while self._handles:
            self._handles.pop().remove()

    def tap(self, first: nn.Module, last: nn.Module, sink: Sink) -> None:
        """Watches a linear path from the input of one module to the output of another.

        Args:
            first: its input is x.
            last: its output y; may be `first` itself.
            sink: gets (x, dLoss/dy) in the backward pass, once for each use of the path.
        """
        waiting: list[Tensor] = []  # inputs of paths that have begun; they do not nest

        def begin(module: nn.Module, args: tuple[Any, ...], named: dict[str, Any]) -> None:
            waiting[:] = [args[0] if args else named["x"]]  # as PEFT's layers call it
            self._measure(waiting[0].shape[:-1])

        def end(module: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor:
            if not waiting:  # called past `first`
                return output
            source = waiting.pop()
            if not (torch.is_grad_enabled() and output.requires_grad):
                return output
            tapped: Tensor = _Tap.apply(output, source.detach(), sink)  # type: ignore[no-untyped-call]
            return tapped

        self._handles.append(first.register_forward_pre_hook(begin, with_kwargs=True))
        self._handles.append(last.register_forward_hook(end))

    def measure_inputs(self, model: nn.Module) -> None:
        """Lets `lengths` know a model's own inputs: ids, masks, embeddings; keeps its masks."""

        def measure(module: nn.Module, args: tuple[Any, ...], named: dict[str, Any]) -> None:
            masks = (named.get("attention_mask"), named.get("decoder_attention_mask"))
            self._masks = [mask for mask in masks if mask is not None and mask.dim() == 2]
            for value in (*args, *named.values()):
                if isinstance(value, Tensor):
                    self._measure(value.shape[:2])

        self._handles.append(model.register_forward_pre_hook(measure, with_kwargs=True))

    def expect_none(self, gradient: Tensor, layer: str) -> None:
        """Takes the gradient of a factor of which no path was seen; `check` looks at it."""
        self._unseen.append((layer, gradient.any()))

    def check(self) -> None:
        """Checks the gradients of factors of which no path was seen in the pass, all at once.

        Zeros are let through: some code adds 0 * factor to the loss for factors that it leaves out.

        Raises:
            RuntimeError: one is more than zeros, so a path went past the hooks.
        """
        if not self._unseen:
            return
        layers, flags = zip(*self._unseen, strict=True)
        for layer, is_past in zip(layers, torch.stack(flags).tolist(), strict=True):
            if is_past:
                raise RuntimeError(
                    f"{layer}: expected its inputs before its gradient, found a gradient alone, "
                    "which cannot be taken apart by domain; the layer's modules are passed over "
                    "(fused kernels, torch.compile, code that uses lora_A.weight itself), or the "
                    "forward pass ran outside of `collect`: call the modules, within `collect`"
                )

    def is_token(self, values: Tensor) -> Tensor:
        """Which of a layer's (batch, tokens, features) are tokens, (batch, tokens) of its dtype.

        By the model's attention mask of that shape; without one all are.
        """
        for mask in self._masks:
            if mask.shape == values.shape[:2]:
                return (mask != 0).to(values)
        return values.new_ones(values.shape[:2])

    def _measure(self, shape: torch.Size) -> None:
        if len(shape) > 1 and shape[0] == self._sequences:
            self.lengths.add(shape[1:].numel())

    def replace_gradient(self, parameter: Tensor, replace: Callable[[Tensor], Tensor]) -> None:
        """Lets `replace` change a parameter's gradient before it is added to `.grad`.

        It is called once in a backward pass, with the sum over all uses of the parameter.
        """
        if parameter.requires_grad:
            self._handles.append(parameter.register_hook(replace))  # type: ignore[no-untyped-call]
