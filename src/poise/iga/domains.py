"""One pass over a batch, taken apart by domain: whose rows are whose, and what each layer saw."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, Literal, NamedTuple, get_args

import torch
from torch import Tensor, nn

from ..sharding import units_of

Weights = Literal["equal", "tokens"]
WEIGHTS: tuple[Weights, ...] = get_args(Weights)


def weigh_domains(counts: Sequence[float], by: Weights = "equal") -> dict[int, float]:
    """w_k of the domains that have some of K numbers n_k of tokens: 1 / their number, or by
    "tokens" n_k / n. ValueError for other weights."""
    if by not in WEIGHTS:
        raise ValueError(f"weights: expected one of {', '.join(WEIGHTS)}, found {by!r}")
    total, present = sum(counts), [k for k, count in enumerate(counts) if count > 0]
    return {k: counts[k] / total if by == "tokens" else 1 / len(present) for k in present}


def weighted_sum(weights: dict[int, float], losses: Tensor) -> Tensor:
    """sum_k w_k L_k over the domains that have a weight; what stands at the others is not read."""
    return torch.stack([weight * losses[k] for k, weight in weights.items()]).sum()


class OnHost(NamedTuple):
    """Domains of the sequences, and loss tokens of the domains, as plain numbers."""

    domains: tuple[int, ...]
    counts: tuple[float, ...]


@dataclass(frozen=True)
class DomainBatch:
    """Domains of a (micro-)batch's sequences, and how many tokens of each have a loss.

    A domain without tokens is missing: it has no loss and no weight.

    Args:
        domains: (batch,) domain of each sequence, 0 to K - 1, on the model's device.
        counts: (K,) numbers n_k of loss tokens (or of whatever the domain's mean is over).
        predicting: (batch, tokens), at which tokens the loss's are predicted: mostly the tokens
            before them. The direction space keeps their inputs' means apart from the others'.

    Raises:
        TypeError: lists in place of tensors.
        ValueError: no sequence, other shapes, a domain that is no whole number from 0 to K - 1, a
            number of tokens below 0, a domain with tokens and without sequences.
    """

    domains: Tensor
    counts: Tensor
    predicting: Tensor | None = None

    def __post_init__(self) -> None:
        domains, counts, predicting = self.domains, self.counts, self.predicting
        for name in ("domains", "counts", *(("predicting",) if predicting is not None else ())):
            if not isinstance(value := getattr(self, name), Tensor):
                raise TypeError(
                    f"{name}: expected a tensor, found {type(value).__name__}; make it one, on the "
                    f"model's device (torch.tensor({name}, device=...))"
                )
        if domains.dim() != 1 or counts.dim() != 1 or not domains.numel():
            raise ValueError(
                "domains, counts: expected shapes (batch,) and (K,), found "
                f"{tuple(domains.shape)} and {tuple(counts.shape)}"
            )
        if domains.is_floating_point() or domains.dtype == torch.bool:
            raise ValueError(f"domains: expected whole numbers, found {domains.dtype}")
        if predicting is not None and predicting.shape[:-1] != domains.shape:
            raise ValueError(
                f"predicting: expected shape (batch = {len(domains)}, tokens), found "
                f"{tuple(predicting.shape)}"
            )
        numbers, tokens = self.host
        if not all(count >= 0 for count in tokens):
            raise ValueError(f"counts: expected numbers of tokens, 0 or more, found {tokens}")
        if min(numbers) < 0 or max(numbers) >= len(tokens):
            raise ValueError(
                f"domains: expected numbers from 0 to {len(tokens) - 1}, found "
                f"{min(numbers)} to {max(numbers)}"
            )
        if absent := [k for k in self.present if k not in numbers]:
            raise ValueError(
                f"counts: expected no tokens for domains without sequences, found some for {absent}"
            )

    @classmethod
    def of(cls, labels: Tensor, domains: Tensor, number: int) -> DomainBatch:
        """A batch of K domains, of labels (batch, tokens), -100 where there is no loss.

        A row's first token is never predicted, each other one at the token before it.
        """
        following = labels.roll(-1, 1)
        following[:, -1] = -100
        is_predicting = following != -100
        tokens = is_predicting.sum(1)
        counts = tokens.new_zeros(number).index_add_(0, domains.to(tokens.device), tokens)
        return cls(domains, counts, is_predicting)

    @cached_property
    def host(self) -> OnHost:
        """Domains and counts as the host knows them, for which it waits once."""
        domains, counts = self.domains.to(self.counts.device), self.counts.detach()
        values, number = torch.cat([domains, counts]).tolist(), len(domains)
        return OnHost(tuple(map(int, values[:number])), tuple(map(float, values[number:])))

    @cached_property
    def present(self) -> tuple[int, ...]:
        """Domains that have tokens."""
        return tuple(k for k, count in enumerate(self.host.counts) if count > 0)

    @cached_property
    def rows(self) -> dict[int, Tensor | slice]:
        """(n,) places in the batch of each present domain's sequences; a slice where they are
        neighbours, which spares a copy of what every layer saw."""
        places = {k: [i for i, d in enumerate(self.host.domains) if d == k] for k in self.present}
        result: dict[int, Tensor | slice] = {k: slice(p[0], p[-1] + 1) for k, p in places.items()}
        spread = {k: p for k, p in places.items() if p[-1] - p[0] + 1 > len(p)}
        if spread:
            flat = [place for own in spread.values() for place in own]
            every = torch.tensor(flat, device=self.domains.device)  # one copy for all of them
            sizes = [len(own) for own in spread.values()]
            result |= zip(spread, torch.split(every, sizes), strict=True)
        return result

    def weights(self, by: Weights = "equal") -> Tensor:
        """(K,) float64 weights w_k on the CPU, 0 for missing domains; see `weigh_domains`."""
        found = weigh_domains(self.host.counts, by)
        every = [found.get(k, 0.0) for k in range(len(self.host.counts))]
        return torch.tensor(every, dtype=torch.float64)

    def means(self, per_token: Tensor) -> Tensor:
        """(K,) means over each domain's loss tokens, 0 for a domain without, of (batch, tokens)
        values that are 0 where there is no loss."""
        zero, rows = per_token.new_zeros(()), self.rows
        sums = [per_token[rows[k]].sum() if k in rows else zero for k in range(len(self.counts))]
        return torch.stack(sums) / self.counts.to(zero).clamp(min=1)


Pair = tuple[Tensor, Tensor]
Sink = Callable[[Pair], None]


class Pass(ExitStack):
    """One forward and one backward pass over a batch, under hooks.

    Hooks go at the end of a `with`, also after an exception. `weigh` makes the loss, so that what
    arrives at a layer is known to be share * w_k times the gradient of L_k.

    Args:
        batch: whose domains are kept apart.
        tau: temperature of the mask.
        model: what is run; None where neither its inputs nor FSDP2 matter.
    """

    def __init__(
        self, batch: DomainBatch, tau: float = 0.0, model: nn.Module | None = None
    ) -> None:
        super().__init__()
        self.batch, self.tau = batch, tau
        self.by: Weights = "equal"
        self.share = 1.0  # of sum_k w_k L_k in what is differentiated
        # Tokens that a sequence has, as far as seen: rows of (batch * tokens, features) need it.
        self.lengths: set[int] = {1}
        self._weights: dict[int, float] | None = None
        self._is_differentiated = False
        self._unseen: list[tuple[str, Tensor]] = []
        self._masks: list[Tensor] = []
        self._units: dict[nn.Module, nn.Module] = {}
        if model is not None:
            self._units = units_of(model)
            hook = model.register_forward_pre_hook(self._measure_inputs, with_kwargs=True)
            self.callback(hook.remove)

    # What the loss is

    def weigh(
        self, losses: Tensor, by: Weights = "equal", share: float = 1.0, scale: float = 1.0
    ) -> Tensor:
        """share * sum_k w_k L_k; see `GradientEngine.weigh`."""
        if losses.shape != self.batch.counts.shape:
            raise ValueError(
                f"losses: expected shape {tuple(self.batch.counts.shape)}, one mean loss a domain, "
                f"found {tuple(losses.shape)}"
            )
        for name, value in (("share", share), ("scale", scale)):
            if not value > 0:
                raise ValueError(f"{name}: expected a number above 0, found {value!r}")
        if not self.batch.present:
            raise ValueError("counts: expected loss tokens in at least one domain, found none")
        if self._weights is not None:
            raise RuntimeError(
                "expected one loss in a pass, found a second; call `collect` for each micro-batch"
            )
        self._weights, self.by = weigh_domains(self.batch.host.counts, by), by
        self.share = share * scale
        loss = share * weighted_sum(self._weights, losses)
        if loss.requires_grad:
            loss.register_hook(self._note_backward)  # type: ignore[no-untyped-call]
        return loss

    def _note_backward(self, gradient: Tensor) -> None:
        self._is_differentiated = True

    @property
    def is_weighed(self) -> bool:
        """Whether `weigh` has made a loss."""
        return self._weights is not None

    @property
    def weights(self) -> dict[int, float]:
        """Weights w_k of the present domains; RuntimeError before `weigh` has made the loss."""
        if self._weights is None:
            raise RuntimeError(
                "expected a loss of the domains' losses, found a backward pass of another, whose "
                "weights are not known; call engine.backward(losses, weights) within `collect`"
            )
        return self._weights

    @property
    def units(self) -> dict[int, float]:
        """Factors from what arrives to the gradient of each L_k: 1 / (share * w_k)."""
        return {k: 1.0 / (self.share * weight) for k, weight in self.weights.items()}

    # What layers see

    def watch(
        self,
        layer: str,
        first: nn.Module,
        last: nn.Module,
        modules: Sequence[nn.Module],
        see: Sink,
        replace: Callable[[int, Tensor], Tensor] = lambda _, gradient: gradient,
    ) -> None:
        """Watches a linear path from the input x of one module to the output y of another, which
        may be the same.

        Args:
            layer: what an error calls it.
            modules: they hold the path's weights.
            see: gets (x, dLoss/dy) in the backward pass, once for each use of the path.
            replace: makes of the number of a weight, and of the sum of its gradient over all uses,
                what autograd adds to `.grad`.
        """
        waiting: list[Tensor] = []  # inputs of paths that have begun; they do not nest
        is_seen = False

        def begin(module: nn.Module, args: tuple[Any, ...], named: dict[str, Any]) -> None:
            waiting[:] = [args[0] if args else named["x"]]  # as PEFT's layers call it
            self._measure(waiting[0].shape[:-1])

        def end(module: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor:
            source = waiting.pop() if waiting else None  # else it is called past `first`
            if source is None or not (torch.is_grad_enabled() and output.requires_grad):
                return output
            tapped: Tensor = _Tap.apply(output, source.detach(), use)  # type: ignore[no-untyped-call]
            return tapped

        def use(pair: Pair) -> None:
            nonlocal is_seen
            is_seen = True
            self.weights  # noqa: B018 (raises)
            see(pair)

        def arrive(part: int, gradient: Tensor) -> Tensor:
            if is_seen:
                return replace(part, gradient)
            self.expect_none(layer, gradient)
            return gradient

        self.callback(first.register_forward_pre_hook(begin, with_kwargs=True).remove)
        self.callback(last.register_forward_hook(end).remove)
        for part, module in enumerate(modules):
            self._hook_gradient(module, partial(arrive, part))

    def expect_none(self, layer: str, gradient: Tensor) -> None:
        """Takes note of a gradient whose inputs were not seen; `collect` raises if it is not 0."""
        self._unseen.append((layer, gradient.any()))

    def _hook_gradient(self, module: nn.Module, replace: Callable[[Tensor], Tensor]) -> None:
        """Hooks a weight, or under FSDP2 the gathered one, which the module holds while its unit
        runs, and whose gradient is then averaged over ranks."""
        hooked: list[Tensor] = []

        def register(*_: object) -> None:
            weight: Any = module.weight
            if not any(weight is known for known in hooked):  # a recomputed forward is no other
                hooked.append(weight)
                self.callback(weight.register_hook(replace).remove)

        unit = self._units.get(module)
        if unit is not None and module.weight.requires_grad:
            self.callback(unit.register_forward_pre_hook(register).remove)
        elif module.weight.requires_grad:
            register()

    def _measure_inputs(
        self, module: nn.Module, args: tuple[Any, ...], named: dict[str, Any]
    ) -> None:
        """Takes lengths and attention masks from a model's inputs."""
        masks = (named.get("attention_mask"), named.get("decoder_attention_mask"))
        self._masks = [mask for mask in masks if mask is not None and mask.dim() == 2]
        for value in (*args, *named.values()):
            if isinstance(value, Tensor):
                self._measure(value.shape[:2])

    def _measure(self, shape: torch.Size) -> None:
        if len(shape) > 1 and shape[0] == len(self.batch.domains):
            self.lengths.add(shape[1:].numel())

    def mask_of(self, values: Tensor) -> Tensor | None:
        """Which of a layer's (batch, tokens, features) are tokens, by the model's attention mask.

        None without one of that shape: all are.
        """
        return next((m != 0 for m in self._masks if m.shape == values.shape[:2]), None)

    def check(self) -> None:
        """Checks that the pass was whole, and the gradients of weights of which no path was seen in
        it, all at once; errors are `GradientEngine.collect`'s.

        Zeros are let through: some code adds 0 * factor to the loss for factors that it leaves out.
        """
        if self.is_weighed and not self._is_differentiated:
            raise RuntimeError(
                "expected the backward pass of the domains' losses within `collect`, found none; "
                "call engine.backward(losses) there, or backward() of what engine.weigh returned"
            )
        predicting = self.batch.predicting
        found = 1 if predicting is None or not self.is_weighed else predicting.shape[1]
        if found not in self.lengths:
            raise ValueError(
                f"predicting: expected tokens of a sequence among {sorted(self.lengths)}, as the "
                f"model's inputs have, found {found}; give a value for every token, the last too"
            )
        flags = torch.stack([flag for _, flag in self._unseen]).tolist() if self._unseen else []
        for (layer, _), is_past in zip(self._unseen, flags, strict=True):
            if is_past:
                raise RuntimeError(
                    f"{layer}: expected its inputs before its gradient, found a gradient alone, "
                    "which cannot be taken apart by domain; the layer's modules are passed over "
                    "(fused kernels, torch.compile, code that uses lora_A.weight itself), or the "
                    "forward pass ran outside of `collect`: call the modules, within `collect`"
                )

    # Rows by domain

    def by_sequence(self, values: Tensor, layer: str) -> Tensor:
        """A layer's inputs or output gradients, also (batch * tokens, features), as
        (batch, ..., features).

        Raises:
            ValueError: the layer does not keep sequences apart along its first dimension.
        """
        batch = len(self.batch.domains)
        if values.shape[0] == batch:
            return values
        if values.dim() == 2 and len(values) in {batch * length for length in self.lengths}:
            return values.view(batch, -1, values.shape[-1])
        raise ValueError(
            f"{layer}: expected inputs of shape (batch = {batch}, ..., features), or (batch * "
            f"tokens, features) with tokens per sequence among {sorted(self.lengths)}, found "
            f"{tuple(values.shape)}; layers that route or pack tokens (mixtures of experts, "
            "packing, padding-free batches) mix domains in a row: leave them out of "
            "target_modules, or set packing and padding_free off; of other layers, give `domains` "
            "one entry for each sequence"
        )

    def tokens_by_domain(self, pairs: Collection[Pair], layer: str) -> list[Pair]:
        """Each present domain's inputs (n, in) and output gradients (n, out), over all uses, of
        which `pairs` has one each, as `by_sequence` takes them."""
        split = [[self.by_sequence(t, layer) for t in pair] for pair in pairs]
        result = []
        for rows in self.batch.rows.values():
            parts = [[t[rows].reshape(-1, t.shape[-1]) for t in pair] for pair in split]
            x, delta = (c[0] if len(c) == 1 else torch.cat(c) for c in zip(*parts, strict=True))
            result.append((x, delta))
        return result


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
        ctx.sink((source, gradient))
        return gradient, None, None
