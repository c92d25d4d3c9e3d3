"""Per-domain gradients of the factors A and B, summed exactly over a step, and combined once."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

import torch
import torch.distributed as dist
from torch import Tensor, nn

from ..methods.base import Aggregator
from ..methods.iga import IGA
from .adapters import Adapter
from .domains import DomainBatch, domain_weights, tokens_by_domain
from .masked_mean import Scratch, accumulation_dtype, domain_gradients, masked_mean
from .statistics import StatisticsLog
from .taps import Hooks, require_no_gradient


class FactorSpace:
    """Keeps the domains' gradient sums of every factor until the step is complete.

    A domain's gradient is that of its mean loss over all micro-batches and ranks of the step: token
    sums are added up and divided by the number of tokens once, so the result does not depend on how
    the step's sequences were divided.

    Args:
        adapters: LoRA matrices.
        method: IGA's settings, space "factor", which mask each factor by itself; or an aggregator,
            which sees all factors at once.
    """

    def __init__(self, adapters: Sequence[Adapter], method: IGA | Aggregator) -> None:
        self.statistics = StatisticsLog()
        self._method = method
        self._scratch = Scratch()
        self._factors = [
            _Factor(f"{adapter.name}.{part}", source, module)
            for adapter in adapters
            for part, source, module in (
                ("lora_A", adapter.source, adapter.down),
                ("lora_B", adapter.up, adapter.up),
            )
            if module.weight.requires_grad
        ]
        self._forget_step()

    def _forget_step(self) -> None:
        self._counts: Tensor | None = None  # (K,) loss tokens of the step so far
        self._shares = 0.0
        self._by_tokens = False
        self._tau = 0.0

    def attach(self, hooks: Hooks, batch: DomainBatch, tau: float) -> None:
        """Hooks every factor for one forward and backward pass."""
        counts = batch.counts.detach().cpu().double()
        self._counts = counts if self._counts is None else self._counts + counts
        self._shares += batch.share
        self._by_tokens, self._tau = batch.by_tokens, tau
        for factor in self._factors:
            factor.attach(hooks, batch, self._scratch)

    def detach(self) -> None:
        """Ends a pass, also an interrupted one."""
        self._scratch.release()
        for factor in self._factors:
            factor.pairs = []

    def reset(self) -> None:
        """Forgets the step so far."""
        self._forget_step()
        for factor in self._factors:
            factor.forget_step()

    def state_dict(self) -> dict[str, Tensor]:
        """Nothing carries over from step to step."""
        return {}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Takes `state_dict`'s.

        Raises:
            ValueError: it is not of the factor space.
        """
        if state:
            raise ValueError("state: expected none in factor space, found one of the weight space")

    @torch.no_grad()
    def finish(self, learning_rate: float | None = None) -> None:
        """Combines the step's gradients and puts them into `.grad`."""
        ranks = dist.get_world_size() if _is_distributed() else 1
        if ranks > 1:
            self._agree()
        if self._counts is None:
            return
        device = self._factors[0].module.weight.device
        own = torch.cat([self._counts, self._counts.new_tensor([self._shares])])
        totals = _sum_over_ranks(own.to(device)).cpu()  # a backend knows its own devices only
        counts, share = totals[:-1], float(totals[-1]) / ranks
        weights = domain_weights(counts, by_tokens=self._by_tokens)
        present = torch.nonzero(weights).flatten().tolist()
        used: list[tuple[_Factor, Tensor]] = []  # (K, rows, columns) each
        for factor in self._factors:
            gradients = _sum_over_ranks(factor.take(len(counts)))[present]
            if factor.module.weight.grad is None and not bool(gradients.any()):
                continue  # not used: plain training leaves it without a gradient, too
            gradients /= counts[present].to(gradients)[:, None, None]
            used.append((factor, gradients))
        combine = self._mask_each if isinstance(self._method, IGA) else self._aggregate
        for (factor, _), result in zip(used, combine(used, weights[present]), strict=True):
            factor.write(result * share)
        self._scratch.release()
        self._forget_step()

    def _mask_each(
        self, used: Sequence[tuple[_Factor, Tensor]], weights: Tensor
    ) -> Iterator[Tensor]:
        """Each factor's masked mean; one lives until the next."""
        assert isinstance(self._method, IGA)
        units = [1.0] * len(weights)
        for factor, gradients in used:
            mask, tau = self._method.mask, self._tau
            masked, seen = masked_mean(gradients, units, weights, mask, tau, self._scratch)
            self.statistics.add(factor.name, torch.cat([seen, seen.new_ones(1)]))
            yield masked

    def _aggregate(
        self, used: Sequence[tuple[_Factor, Tensor]], weights: Tensor
    ) -> Iterator[Tensor]:
        """Each factor's part of the aggregate of all."""
        assert isinstance(self._method, Aggregator)
        if not used:
            return
        whole = self._method(torch.cat([g.flatten(1) for _, g in used], 1), weights)
        parts = torch.split(whole, [g[0].numel() for _, g in used])
        for (_, gradients), part in zip(used, parts, strict=True):
            yield part.view(gradients.shape[1:])

    def _agree(self) -> None:
        """A rank without any loss in the step takes part in the sums with zeros."""
        number = 0 if self._counts is None else len(self._counts)
        own = [number, self._by_tokens, self._tau]
        device = self._factors[0].module.weight.device
        known = torch.tensor(own, dtype=torch.float64, device=device)
        dist.all_reduce(known, dist.ReduceOp.MAX)
        if self._counts is None and known[0] > 0:
            self._counts = torch.zeros(int(known[0]), dtype=torch.float64)
            self._by_tokens, self._tau = bool(known[1]), float(known[2])


class _Factor:
    """One factor: collects (input, output gradient), and sums up gradients by domain."""

    def __init__(self, name: str, source: nn.Module, module: nn.Linear) -> None:
        self.name, self.source, self.module = name, source, module
        self.pairs: list[tuple[Tensor, Tensor]] = []
        self.forget_step()

    def forget_step(self) -> None:
        self._sums: Tensor | None = None

    def attach(self, hooks: Hooks, batch: DomainBatch, scratch: Scratch) -> None:
        self.pairs = []

        def replace(gradient: Tensor) -> Tensor:
            if self.pairs:
                self._add(batch, hooks.lengths, scratch)
            else:
                require_no_gradient(gradient, self.name)
            return gradient  # `finish` writes another

        hooks.tap(self.source, self.module, lambda x, delta: self.pairs.append((x, delta)))
        hooks.replace_gradient(self.module.weight, replace)

    @torch.no_grad()
    def _add(self, batch: DomainBatch, lengths: Collection[int], scratch: Scratch) -> None:
        pairs = tokens_by_domain(self.pairs, batch, lengths, self.name)
        self.pairs = []
        units = [unit * float(batch.counts[k]) for k, unit in batch.units.items()]
        sums = self._zeros(len(batch.counts))
        gradients = domain_gradients(pairs, scratch)
        for domain, gradient, unit in zip(batch.rows, gradients, units, strict=True):
            sums[domain].add_(gradient, alpha=unit)

    def _zeros(self, domains: int) -> Tensor:
        if self._sums is None:
            weight = self.module.weight
            shape, dtype = (domains, *weight.shape), accumulation_dtype(weight.dtype)
            self._sums = torch.zeros(shape, dtype=dtype, device=weight.device)
        return self._sums

    def take(self, domains: int) -> Tensor:
        """(K, rows, columns) sums since the last call."""
        sums, self._sums = self._zeros(domains), None
        return sums

    def write(self, gradient: Tensor) -> None:
        """Puts a gradient into the parameter's."""
        weight = self.module.weight
        if weight.grad is None:
            weight.grad = torch.empty_like(weight)
        weight.grad.copy_(gradient)  # in place: it may be a part of a reducer's bucket


def _is_distributed() -> bool:
    return dist.is_available() and dist.is_initialized()


def _sum_over_ranks(values: Tensor) -> Tensor:
    if _is_distributed():
        dist.all_reduce(values)
    return values
