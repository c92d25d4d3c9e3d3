"""Gradients that cannot read which domain they are in: directions, not elements, are taken out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor

from .adapters import Adapter
from .domains import DomainBatch, by_sequence
from .masked_mean import accumulation_dtype
from .statistics import StatisticsLog
from .taps import Hooks

DECAY = 0.9  # of the running sums, a step
LEAST = 1e-3  # tokens that a domain has in them, below which it is forgotten


class DirectionSpace:
    r"""Projects every gradient off the directions that tell the domains apart.

    For a layer with inputs x let :math:`\mu_k` be their running mean over the tokens of domain k,
    and P an orthonormal basis of the differences of the :math:`\mu_k`: K - 1 directions for K
    domains. Where `DomainBatch.predicting` says at which tokens the loss's are predicted, these
    and the others have means of their own, and P has 2 (K - 1) directions: what the domains differ
    in where an answer is decided is not what they differ in on average (Choice).
    The gradient of the layer's matrix becomes :math:`G (I - P P^T)`, so

    .. math:: dA \leftarrow dA\,(I - P P^T), \qquad
        dB \leftarrow dB - C\,(A P)^T, \quad C = \sum_t \delta_t\,(P^T x_t)^T

    with :math:`\delta` the gradient of B's output. No gradient is taken apart by domain.

    What the optimizer makes of it is another matter: an adaptive one's step of A leaves the
    complement of P, and A's random start never was in it. With `is_kept_off` (IGA's
    `applied_to="update"`) A itself is projected after each step,
    :math:`A \leftarrow A\,(I - P P^T)`, with the P of the next one. The adapter then does not read
    the directions at all, and dB needs nothing taken out. A loses with it whatever P has ever been:
    the more, the narrower the layer and the more steps. A that is frozen stays as it is.

    P is that of the steps before, one for all micro-batches and ranks; the first step is plain.
    Sums of inputs and C are added up over both, so a step is plain fine-tuning's, projected. The
    running mean weighs a step 0.9 times the one after it (Choice).
    All tokens count, those of the prompt too, but padding (Choice).

    Args:
        adapters: LoRA matrices.
        is_kept_off: whether A itself is projected.
    """

    def __init__(self, adapters: Sequence[Adapter], is_kept_off: bool = False) -> None:
        self.statistics = StatisticsLog()
        self._layers = [_Layer(adapter, is_kept_off) for adapter in adapters]

    def attach(self, hooks: Hooks, batch: DomainBatch, tau: float) -> None:
        """Hooks every layer for one forward and backward pass."""
        for layer in self._layers:
            layer.attach(hooks, batch)

    def detach(self) -> None:
        """Ends a pass, also an interrupted one."""
        for layer in self._layers:
            layer.is_seen = False

    def reset(self) -> None:
        """Forgets the step so far."""
        for layer in self._layers:
            layer.forget_step()

    def state_dict(self) -> dict[str, Tensor]:
        """Running sums and counts of inputs by layer, (groups of tokens, K, in + 1)."""
        return {x.name: x.running for x in self._layers if x.running is not None}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Takes `state_dict`'s.

        Raises:
            ValueError: layers or shapes of another model.
        """
        if unknown := set(state) - {layer.name for layer in self._layers}:
            raise ValueError(
                f"running sums: expected layers of this model, found {sorted(unknown)[0]!r}"
            )
        for layer in self._layers:
            layer.load(state.get(layer.name))
        self._find_directions()

    @torch.no_grad()
    def finish(self, learning_rate: float | None = None) -> None:
        """Projects the step's gradients in `.grad`, then learns from its inputs."""
        ranks = dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1
        if ranks > 1:
            self._add_up_over_ranks(ranks)
        for layer in self._layers:
            layer.project(self.statistics)
            layer.learn()
        self._find_directions()

    def before_step(self) -> None:
        """Nothing is needed of the parameters as they were."""

    @torch.no_grad()
    def after_step(self) -> None:
        """Projects A off the directions of the next step."""
        for layer in self._layers:
            layer.keep_off()

    def _find_directions(self) -> None:
        """P of every layer, all layers of one width at once."""
        alike: dict[tuple[int, ...], list[_Layer]] = {}
        for layer in self._layers:
            if layer.running is not None:
                alike.setdefault(tuple(layer.running.shape), []).append(layer)
        for layers in alike.values():
            running = torch.stack([layer.running for layer in layers if layer.running is not None])
            for layer, basis in zip(layers, domain_directions(running), strict=True):
                layer.basis = basis

    def _add_up_over_ranks(self, ranks: int) -> None:
        """A rank without a layer's tokens, or without any loss, adds zeros."""
        known = torch.tensor([layer.size for layer in self._layers], device=self._layers[0].device)
        dist.all_reduce(known, dist.ReduceOp.MAX)
        parts: list[Tensor] = []
        for layer, (groups, domains) in zip(self._layers, known.tolist(), strict=True):
            if domains:
                parts += layer.parts(groups, domains)
        if not parts:
            return
        flat = torch.cat([part.flatten() for part in parts])
        dist.all_reduce(flat)
        for part, total in zip(parts, torch.split(flat, [p.numel() for p in parts]), strict=True):
            part.copy_(total.view_as(part))
        for layer in self._layers:
            layer.average(ranks)


def domain_directions(running: Tensor) -> Tensor:
    r"""Orthonormal bases P (n, in, groups x (K - 1)) of the differences between domains' means.

    Args:
        running: (n, groups, K, in + 1), sums of inputs and, last, numbers of tokens. A domain
            without tokens in a group, or long without, has no mean there and adds no direction.

    Returns:
        Columns of zeros where there are fewer directions.
    """
    counts = running[..., -1:]
    has_tokens = counts > LEAST
    means = torch.where(has_tokens, running[..., :-1] / counts.clamp_min(LEAST), 0.0)
    center = means.sum(2, keepdim=True) / has_tokens.sum(2, keepdim=True).clamp_min(1)
    differences = torch.where(has_tokens, means - center, 0.0).flatten(1, 2)
    _, values, right = torch.linalg.svd(differences, full_matrices=False)
    rank = running.shape[1] * (running.shape[2] - 1)
    eps = torch.finfo(running.dtype).eps * max(differences.shape[1:])
    # The differences' rounding is that of the means.
    size = means.flatten(1).norm(dim=1, keepdim=True)
    is_direction = values[:, :rank] > eps * size
    basis: Tensor = (right[:, :rank] * is_direction[..., None]).transpose(1, 2)
    return basis


class _Step(NamedTuple):
    """What a step adds up: (groups, K, in + 1) sums of inputs and counts; C (out, directions)."""

    inputs: Tensor
    removed: Tensor


class _Layer:
    """One adapter: adds up inputs by domain, and what of B's gradient is to be taken out."""

    def __init__(self, adapter: Adapter, is_kept_off: bool) -> None:
        self.name = adapter.name
        # Of a frozen A the gradient of B alone is projected.
        self._is_kept_off = is_kept_off and adapter.down.weight.requires_grad
        self._is_off = False  # whether A is, off the basis as it is
        self._adapter = adapter
        self.running: Tensor | None = None
        self.basis: Tensor | None = None  # P (in, directions)
        self.is_seen = False
        self.forget_step()

    @property
    def device(self) -> torch.device:
        return self._adapter.down.weight.device

    def forget_step(self) -> None:
        self._step: _Step | None = None

    @property
    def size(self) -> tuple[int, int]:
        """Groups and domains of the step, 0 where the layer was not used."""
        if self._step is None:
            return 0, 0
        groups, domains, _ = self._step.inputs.shape
        return groups, domains

    def parts(self, groups: int, domains: int) -> tuple[Tensor, Tensor]:
        """The step's sums, zeros at its beginning."""
        if self._step is None:
            down, up = self._adapter.parameters
            dtype = accumulation_dtype(down.dtype)
            directions = min(groups * (domains - 1), down.shape[1])
            self._step = _Step(
                torch.zeros(groups, domains, down.shape[1] + 1, dtype=dtype, device=down.device),
                torch.zeros(up.shape[0], directions, dtype=dtype, device=down.device),
            )
        return self._step

    def average(self, ranks: int) -> None:
        """C as the gradients are, a mean over ranks."""
        if self._step is not None:
            self._step.removed.div_(ranks)

    def attach(self, hooks: Hooks, batch: DomainBatch) -> None:
        self.is_seen = False
        adapter = self._adapter

        def see(x: Tensor, delta: Tensor) -> None:
            self.is_seen = True
            self._add(x, delta, hooks, batch)

        def check(gradient: Tensor) -> Tensor:
            if not self.is_seen:
                hooks.expect_none(gradient, self.name)
            return gradient

        hooks.tap(adapter.source, adapter.up, see)
        for parameter in adapter.parameters:
            hooks.replace_gradient(parameter, check)

    @torch.no_grad()
    def _add(self, x: Tensor, delta: Tensor, hooks: Hooks, batch: DomainBatch) -> None:
        groups = 1 if batch.predicting is None else 2
        seen = self.running if self._step is None else self._step.inputs
        if seen is not None and seen.shape[:2] != (groups, len(batch.host.counts)):
            raise ValueError(
                "expected as many domains in every batch, and predicting for all of them or for "
                f"none; found {len(batch.host.counts)} domains in {groups} groups of tokens after "
                f"{seen.shape[1]} in {seen.shape[0]}"
            )
        inputs, removed = self.parts(groups, len(batch.host.counts))
        number = len(batch.host.domains)
        x, delta = (
            by_sequence(t, number, hooks.lengths, self.name).reshape(number, -1, t.shape[-1])
            for t in (x, delta)
        )
        is_token = hooks.is_token(x).to(inputs)
        # In float32 at least: a sum in half precision rounds away what the domains differ in.
        wide = x.to(inputs).masked_fill((is_token == 0)[..., None], 0.0)
        for group, tokens in enumerate(_groups(is_token, batch.predicting)):
            sums = torch.bmm(tokens[:, None], wide)[:, 0]
            both = torch.cat([sums, tokens.sum(1, keepdim=True)], 1)
            inputs[group].index_add_(0, batch.domains, both)
        if self.basis is not None and not self._is_off:
            coordinates = x @ self.basis.to(x)
            removed += (delta.flatten(0, 1).T @ coordinates.flatten(0, 1).to(delta)).to(removed)

    def project(self, statistics: StatisticsLog) -> None:
        """Takes P out of both factors' gradients."""
        if self._step is None:
            return
        if self.basis is None:
            statistics.add(self.name, self._step.inputs.new_tensor([1.0, 0.0, 1.0, 1.0]))
            return
        down, up = self._adapter.parameters
        basis = self.basis
        if down.grad is not None:
            gradient = down.grad.to(basis)
            part = gradient @ basis
            statistics.add(self.name, _seen(basis, part, gradient))
            down.grad.copy_(gradient - part @ basis.T)
        if up.grad is not None and not self._is_off:
            up.grad.sub_((self._step.removed @ (down.detach().to(basis) @ basis).T).to(up.grad))

    def keep_off(self) -> None:
        """Projects A itself."""
        if self._is_kept_off and self.basis is not None:
            down = self._adapter.down.weight
            down.sub_(((down.to(self.basis) @ self.basis) @ self.basis.T).to(down))
            self._is_off = True

    def learn(self) -> None:
        """Adds the step's inputs to the running sums."""
        if self._step is not None:
            inputs = self._step.inputs
            self.running = inputs if self.running is None else DECAY * self.running + inputs
            self._is_off = False  # a step that is not taken leaves A where it is
        self.forget_step()

    def load(self, running: Tensor | None) -> None:
        """Takes running sums.

        Raises:
            ValueError: they are of another width.
        """
        width = self._adapter.down.weight.shape[1] + 1
        if running is not None:
            if running.dim() != 3 or running.shape[2] != width:
                raise ValueError(
                    f"running sums: expected shape (groups, K, {width}) for {self.name}, found "
                    f"{tuple(running.shape)}; they belong to another model or space"
                )
            running = running.to(self.device)
        self.running, self.basis = running, None
        self._is_off = self._is_kept_off  # as it was saved, after its step
        self.forget_step()


def _groups(tokens: Tensor, predicting: Tensor | None) -> tuple[Tensor, ...]:
    """Weights (batch, tokens) of each group: the others, and those at which something is predicted.

    A layer that sees another number of tokens has them all in the first.
    """
    if predicting is None or predicting.shape != tokens.shape:
        return (tokens,)
    chosen = tokens * predicting.to(tokens)
    return tokens - chosen, chosen


def _seen(basis: Tensor, part: Tensor, gradient: Tensor) -> Tensor:
    """Share of directions that stay, and of A's gradient that goes; no domains are compared."""
    width, directions = basis.shape
    tiny = torch.finfo(gradient.dtype).tiny
    suppressed = part.square().sum() / gradient.square().sum().clamp_min(tiny)
    kept = suppressed.new_tensor([1 - directions / width])
    return torch.cat([kept, suppressed[None], suppressed.new_ones(2)])
