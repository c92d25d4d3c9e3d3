"""Per-domain gradients of the factors A and B, summed exactly over a step, and combined once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from ..sharding import add_up, is_shard, local, number_of_ranks, own_rows
from .adapters import DECAY, LEAST, Adapter, Space, widest_dtype
from .domains import Pair, Pass, Weights, weigh_domains
from .mask import Moments, Scratch, domain_gradients, masked_mean
from .settings import IGA, Aggregator

LONGEST = 10.0  # the most by which a masked step is made longer


class FactorSpace(Space):
    """Keeps the domains' gradient sums of every factor until the step is complete.

    A domain's gradient is that of its mean loss over all micro-batches and ranks of the step: token
    sums are added up and divided by the number of tokens once, so the result does not depend on how
    the step's sequences were divided.

    The sums of all P elements of all factors are one (K, P) matrix, of which each factor has its
    columns: ranks add it up at once, and an aggregator gets it as it is.
    IGA's settings mask each factor by itself, an aggregator sees all factors at once.
    """

    def __init__(self, adapters: Sequence[Adapter], method: IGA | Aggregator) -> None:
        super().__init__()
        self._method, self._scratch = method, Scratch()
        self._factors: list[_Factor] = []
        self._size = 0  # P
        for a in adapters:
            for part, source, module in (("lora_A", a.source, a.down), ("lora_B", a.up, a.up)):
                if module.weight.requires_grad:
                    start, self._size = self._size, self._size + module.weight.numel()
                    columns = slice(start, self._size)
                    self._factors.append(_Factor(f"{a.name}.{part}", source, module, columns))
        self.reset()

    def reset(self) -> None:
        self._sums: Tensor | None = None  # (K, P)
        self._counts: list[float] = []  # K loss tokens of the step so far
        self._shares = 0.0
        self._by: Weights = "equal"
        self._pass: Pass | None = None
        self._tau = 0.0
        for factor in self._factors:
            factor.is_used = False

    def attach(self, watched: Pass) -> None:
        if not self._factors:  # biases alone are trained
            return
        domains = len(watched.batch.host.counts)
        if self._number not in (0, domains):
            raise ValueError(
                "expected as many domains in every batch, found counts of "
                f"{domains} after {self._number}; give those without tokens a count of 0"
            )
        self._pass = watched
        sums = self._sums_of(domains)
        for x in self._factors:
            pairs: list[Pair] = []
            add = partial(self._add, x, pairs, watched, sums)
            watched.watch(x.name, x.source, x.module, (x.module,), pairs.append, add)

    @torch.no_grad()
    def _add(
        self, factor: _Factor, pairs: list[Pair], watched: Pass, sums: Tensor, _: int, grad: Tensor
    ) -> Tensor:
        """Adds what a pass gives a factor by domain; the gradient stays until `finish`."""
        if not pairs:
            watched.expect_none(factor.name, grad)
            return grad
        factor.is_used = True
        own, counts = factor.of(sums), watched.batch.host.counts
        parts = domain_gradients(watched.tokens_by_domain(pairs, factor.name), self._scratch)
        for (domain, unit), part in zip(watched.units.items(), parts, strict=True):
            own[domain].add_(part, alpha=unit * counts[domain])
        pairs.clear()
        return grad

    @property
    def _number(self) -> int:
        """Domains so far; 0 before the first."""
        return len(self._counts)

    def _sums_of(self, domains: int) -> Tensor:
        """The step's (K, P) sums, zeros at its beginning."""
        if self._sums is None:
            weights = [factor.module.weight for factor in self._factors]
            is_wide = any(weight.dtype == torch.float64 for weight in weights)
            dtype = torch.float64 if is_wide else torch.float32
            self._sums = torch.zeros(domains, self._size, dtype=dtype, device=weights[0].device)
            self._counts = [0.0] * domains
        return self._sums

    def detach(self) -> None:
        """Ends a pass, which counts if it was not interrupted."""
        if self._pass is not None and self._pass.is_weighed:
            counts = self._pass.batch.host.counts
            self._counts = [a + b for a, b in zip(self._counts, counts, strict=True)]
            self._shares += self._pass.share
            self._by, self._tau = self._pass.by, self._pass.tau
        self._pass = None
        self._scratch.release()

    @torch.no_grad()
    def finish(self, learning_rate: float | None = None) -> None:
        """Combines the step's gradients and puts them into `.grad`."""
        ranks = number_of_ranks()
        if ranks > 1 and self._factors:
            self._add_up_over_ranks()
        if self._sums is None or not any(self._counts):
            self.reset()
            return
        # What is not used is left without a gradient, as in plain training.
        used = [f for f in self._factors if f.is_used or f.module.weight.grad is not None]
        weights = weigh_domains(self._counts, self._by)
        rows = [self._sums[domain] for domain in weights]
        gradients = self._sums if len(rows) == len(self._sums) else torch.stack(rows)
        counts = [self._counts[k] for k in weights]
        gradients /= torch.tensor(counts, dtype=gradients.dtype, device=gradients.device)[:, None]
        self._learn(gradients, list(weights))
        combine = self._aggregate if isinstance(self._method, Aggregator) else self._mask_each
        results = combine(used, gradients, list(weights.values()))
        for factor, result in zip(used, results, strict=True):
            weight = factor.module.weight
            if weight.grad is None:
                weight.grad = torch.empty_like(weight)
            own = (result * (self._shares / ranks))[own_rows(weight)]
            local(weight.grad).copy_(own)  # in place: it may be a part of a reducer's bucket
        self._scratch.release()
        self.reset()

    def _mask_each(
        self, used: Sequence[_Factor], gradients: Tensor, weights: Sequence[float]
    ) -> Iterator[Tensor]:
        """Each factor's masked mean; one lives until the next."""
        assert isinstance(self._method, IGA)
        units, mask = [1.0] * len(weights), self._method.mask
        for factor in used:
            own = factor.of(gradients)
            masked, seen = masked_mean(own, units, weights, mask, self._tau, self._scratch)
            self.statistics.add(factor.name, torch.cat([seen, seen.new_ones(1)]))
            yield masked

    def _aggregate(
        self, used: Sequence[_Factor], gradients: Tensor, weights: Sequence[float]
    ) -> Iterator[Tensor]:
        """Each factor's part of the aggregate of all."""
        assert isinstance(self._method, Aggregator)
        if not used:
            return
        if len(used) < len(self._factors):
            gradients = torch.cat([gradients[:, factor.columns] for factor in used], 1)
        whole = self._method(gradients, torch.tensor(weights, dtype=torch.float64))
        shapes = [factor.module.weight.shape for factor in used]
        parts = torch.split(whole, [shape.numel() for shape in shapes])
        yield from (part.view(shape) for part, shape in zip(parts, shapes, strict=True))

    def _add_up_over_ranks(self) -> None:
        """Sums, counts and shares of all ranks; one without any loss in the step adds zeros."""
        device = self._factors[0].module.weight.device
        dtype = widest_dtype(device)
        is_by_tokens = self._by == "tokens"
        own = [len(self._counts), is_by_tokens, self._tau, *(f.is_used for f in self._factors)]
        known = torch.tensor(own, dtype=dtype, device=device)
        dist.all_reduce(known, dist.ReduceOp.MAX)
        domains, is_by_tokens, self._tau, *is_used = known.tolist()
        if not domains:
            return
        sums, self._by = self._sums_of(int(domains)), "tokens" if is_by_tokens else "equal"
        for factor, flag in zip(self._factors, is_used, strict=True):
            factor.is_used = bool(flag)
        counts = torch.tensor([*self._counts, self._shares], dtype=dtype, device=device)
        dist.all_reduce(counts)
        dist.all_reduce(sums)
        *self._counts, self._shares = counts.tolist()

    def _learn(self, gradients: Tensor, present: list[int]) -> None:
        """Takes the step's (n, P) gradients of the domains that are present."""


@dataclass(eq=False)
class _Factor:
    """One factor: the module whose weight it is, the one whose input is its own, its columns of the
    sums, and whether a pass of the step has used it."""

    name: str
    source: nn.Module
    module: nn.Linear
    columns: slice
    is_used: bool = False

    def of(self, matrix: Tensor) -> Tensor:
        """(K, rows, columns) of it that are this factor's, of a (K, P) matrix."""
        return matrix[:, self.columns].view(len(matrix), *self.module.weight.shape)


class MaskedSteps(FactorSpace):
    r"""Turns each factor's step off what the domains disagree on, without making it shorter.

    With :math:`e_k` the running mean of domain k's gradient of a factor, V their variance over
    domains and :math:`u` the step that the optimizer takes,

    .. math:: u \leftarrow r\, M \odot u, \qquad M = \exp(-\tau V / \mathrm{scale}), \qquad
        r = \min(|u| / |M \odot u|,\ 10)

    An adaptive optimizer divides a gradient by its own running size, so a mask on the gradient is
    undone as far as it stays the same from step to step. Here the moments see the plain gradient.

    Domains weigh alike in the mask (Choice). A step before two domains are known is left alone, and
    one that is skipped, as for gradients that are not finite, leaves the running means.
    """

    def __init__(self, adapters: Sequence[Adapter], method: IGA) -> None:
        super().__init__(adapters, method)
        self._mask = method.mask
        self.shapes = {"running": (None, self._size), "steps": (None,)}
        self._running: Tensor | None = None  # (K, P): sums
        self._steps: list[float] = []  # of how many steps they are, K
        self._pending: tuple[Tensor, list[int], int] | None = None
        self._step_tau = 0.0
        self._before: list[Tensor] = []

    @property
    def _number(self) -> int:
        return super()._number or len(self._steps)

    @property
    def _weights(self) -> list[Tensor]:
        """As they are now: FSDP2 puts others in their place."""
        weights: list[Any] = [factor.module.weight for factor in self._factors]
        return weights

    def _learn(self, gradients: Tensor, present: list[int]) -> None:
        """They count once the optimizer takes the step; the gradient stays the plain mean."""
        self._pending = gradients, present, len(self._counts)
        self._step_tau, self._tau = self._tau, 0.0

    @torch.no_grad()
    def before_step(self) -> None:
        """Adds up the step's gradients, and keeps the factors as they are."""
        self._before = [local(weight).clone() for weight in self._weights]
        if self._pending is None:
            return
        gradients, present, domains = self._pending
        self._pending = None
        if self._running is None:
            self._running = gradients.new_zeros(domains, gradients.shape[1])
            self._steps = [0.0] * domains
        self._running *= DECAY
        self._steps = [DECAY * steps for steps in self._steps]
        for row, domain in enumerate(present):
            # What is not finite and was let through all the same would stay for ever.
            self._running[domain] += gradients[row].nan_to_num(0.0, 0.0, 0.0)
            self._steps[domain] += 1

    @torch.no_grad()
    def after_step(self) -> None:
        """Masks what the optimizer added to them."""
        before, self._before = self._before, []
        known = [k for k, steps in enumerate(self._steps) if steps > LEAST]
        if self._running is None or len(known) < 2:
            return
        means = torch.stack([self._running[k] / self._steps[k] for k in known])
        weights, masked, lengths = self._weights, [], []
        for factor, weight, old in zip(self._factors, weights, before, strict=True):
            variance, mean = torch.var_mean(factor.of(means), 0, correction=0)
            mask = self._mask(Moments(mean, variance), self._step_tau)
            step = (local(weight) - old).to(mask)
            masked.append(mask[own_rows(weight)] * step)
            lengths.append(torch.stack([step.norm(), masked[-1].norm()]))
        if any(map(is_shard, weights)):
            squares = [length.square() for length in lengths]
            add_up(squares)
            lengths = [square.sqrt() for square in squares]
        for weight, old, step, (plain, left) in zip(weights, before, masked, lengths, strict=True):
            tiny = torch.finfo(step.dtype).tiny
            longer = (plain / left.clamp_min(tiny)).clamp_max(LONGEST)
            local(weight).copy_(old + longer * step)

    def state_dict(self) -> dict[str, Tensor]:
        """The running sums, (K, P), and of how many steps they are, (K,)."""
        if self._running is None:
            return {}
        steps = torch.tensor(self._steps, dtype=torch.float64)
        return {"running": self._running, "steps": steps}

    def take(self, state: dict[str, Tensor]) -> None:
        found = {name: len(tensor) for name, tensor in state.items()}
        if found and not (len(found) == 2 and found["running"] == found["steps"]):
            raise ValueError(
                "state: expected 'running' and 'steps' of as many domains, found "
                f"{', '.join(f'{name!r} of {count}' for name, count in found.items())}; give "
                "the whole `state_dict()` of one engine"
            )
        self._running = state["running"].to(self._weights[0].device) if found else None
        self._steps = state["steps"].tolist() if found else []
