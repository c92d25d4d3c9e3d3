"""Gradients that cannot read which domain they are in: directions, not elements, are taken out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import partial

import torch
import torch.distributed as dist
from torch import Tensor

from ..sharding import add_up, among_zeros, is_shard, local, number_of_ranks, own_rows
from .adapters import DECAY, LEAST, Adapter, Space, widest_dtype
from .domains import Pair, Pass


class DirectionSpace(Space):
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
    """

    def __init__(self, adapters: Sequence[Adapter], is_kept_off: bool = False) -> None:
        super().__init__()
        self._layers = [_Layer(adapter, is_kept_off) for adapter in adapters]
        self._sums: _Sums | None = None
        self.shapes = {x.name: (None, None, x.down.shape[1] + 1) for x in self._layers}

    def attach(self, watched: Pass) -> None:
        self._sums = _Sums(watched)
        for layer in self._layers:
            a, add = layer.adapter, partial(layer.add, watched=watched, sums=self._sums)
            watched.watch(a.name, a.source, a.up, (a.down, a.up), add)

    def detach(self) -> None:
        if self._sums is not None:
            self._sums.last = None

    def reset(self) -> None:
        for layer in self._layers:
            layer.step = None

    @torch.no_grad()
    def finish(self, learning_rate: float | None = None) -> None:
        """Projects the step's gradients in `.grad`, then learns from its inputs."""
        ranks = number_of_ranks()
        sums = self._sums_of_all_ranks(ranks) if ranks > 1 else []
        seen, read = self._project_down(), self._read()
        squares = {x: own for layers, rows in seen for x, own in zip(layers, rows, strict=True)}
        for layer in self._used:  # in an order that is the same on all ranks
            if is_shard(layer.down):  # each knows of its rows
                sums += [known[layer] for known in (squares, read) if layer in known]
        add_up(sums)
        self._project_up(read)
        self._log(seen)
        for layer in self._layers:
            layer.learn()
        self._find_directions()

    @torch.no_grad()
    def after_step(self) -> None:
        """Projects A off the directions of the next step."""
        kept_off = ((x, (local(x.down), x.basis)) for x in self._layers if x.can_be_off)
        for layers, (down, basis) in _stacks(kept_off):
            down = down.to(basis)
            for layer, part in zip(layers, down @ basis @ basis.mT, strict=True):
                own = local(layer.down)
                own.sub_(part.to(own))
                layer.is_off = True

    def state_dict(self) -> dict[str, Tensor]:
        """Running sums and counts of inputs by layer, (groups of tokens, K, in + 1)."""
        return {x.name: x.running for x in self._layers if x.running is not None}

    def take(self, state: dict[str, Tensor]) -> None:
        for layer in self._layers:
            running = state.get(layer.name)
            layer.running = None if running is None else running.to(layer.down.device)
            layer.step = layer.basis = None
            layer.is_off = layer.can_be_off  # as it was saved, after its step
        self._find_directions()

    # The parts of a step

    @property
    def _used(self) -> list[_Layer]:
        return [layer for layer in self._layers if layer.step is not None]

    def _sums_of_all_ranks(self, ranks: int) -> list[Tensor]:
        """What a step adds up over ranks; one without a layer's tokens, or without any loss, adds
        zeros."""
        sizes = [(0, 0) if x.step is None else x.step[0].shape[:2] for x in self._layers]
        known = torch.tensor(sizes, device=self._layers[0].down.device)
        dist.all_reduce(known, dist.ReduceOp.MAX)
        parts: list[Tensor] = []
        for layer, (groups, domains) in zip(self._layers, known.tolist(), strict=True):
            if domains:
                inputs, removed = layer.parts(groups, domains)
                parts += inputs, removed.div_(ranks)  # a mean over ranks, as the gradients are
        return parts

    def _project_down(self) -> list[tuple[list[_Layer], Tensor]]:
        """Takes P out of A's gradients. Of n layers of one shape the squared norms (n, 2) of these
        and of what goes of them, of this rank's rows."""
        seen = []
        for layers, (gradient, basis) in _stacks(
            (x, (_local_grad(x.down), x.basis)) for x in self._used
        ):
            gradient = gradient.to(basis)
            part = gradient @ basis
            norms = [torch.linalg.vector_norm(t, dim=(1, 2)) for t in (gradient, part)]
            seen.append((layers, torch.stack(norms, 1).square()))
            gradient.baddbmm_(part, basis.mT, alpha=-1)
            for layer, new in zip(layers, gradient, strict=True):
                local(layer.down.grad).copy_(new)
        return seen

    def _read(self) -> dict[_Layer, Tensor]:
        """What A reads of the directions, A P (r, directions), where it is not kept off them."""
        read: dict[_Layer, Tensor] = {}
        on = (x for x in self._used if not x.is_off and x.up.grad is not None)
        for layers, (down, basis) in _stacks((x, (local(x.down), x.basis)) for x in on):
            for layer, rows in zip(layers, down.to(basis) @ basis, strict=True):
                read[layer] = among_zeros(rows, layer.down)
        return read

    def _project_up(self, read: dict[_Layer, Tensor]) -> None:
        """Takes P out of B's gradients."""
        removed = {x: x.step[1][:, own_rows(x.up)] for x in read if x.step is not None}
        parts = ((x, (removed[x], known, _local_grad(x.up))) for x, known in read.items())
        for layers, (gone, known, _) in _stacks(parts):
            for layer, own in zip(layers, gone.mT @ known.mT, strict=True):
                gradient = local(layer.up.grad)
                gradient.sub_(own.to(gradient))

    def _log(self, seen: list[tuple[list[_Layer], Tensor]]) -> None:
        """Shares of directions that stay, and of A's gradients that go; no domains are compared."""
        for layer in self._used:
            if layer.basis is None:
                plain = torch.tensor([1.0, 0.0, 1.0, 1.0], device=layer.down.device)
                self.statistics.add(layer.name, plain)
        for layers, squares in seen:
            assert layers[0].basis is not None
            width, directions = layers[0].basis.shape
            power, gone = squares.unbind(1)
            ones = torch.ones_like(power)
            shares = gone / power.clamp_min(torch.finfo(power.dtype).tiny)
            figures = torch.stack([ones * (1 - directions / width), shares, ones, ones], 1)
            for layer, figure in zip(layers, figures, strict=True):
                self.statistics.add(layer.name, figure)

    def _find_directions(self) -> None:
        """P of every layer, all layers of one width at once."""
        for layers, (running,) in _stacks((x, (x.running,)) for x in self._layers):
            for layer, basis in zip(layers, domain_directions(running), strict=True):
                layer.basis = basis


class _Layer:
    """One adapter: adds up inputs by domain, and what of B's gradient is to be taken out."""

    def __init__(self, adapter: Adapter, is_kept_off: bool) -> None:
        self.adapter, self.name = adapter, adapter.name
        # Of a frozen A the gradient of B alone is projected.
        self.can_be_off = is_kept_off and self.down.requires_grad
        self.is_off = False  # whether A is, off the basis as it is
        self.running: Tensor | None = None
        self.basis: Tensor | None = None  # P (in, directions)
        # Of the step (groups, K, in + 1) sums of inputs and counts; C^T (directions, out).
        self.step: tuple[Tensor, Tensor] | None = None

    @property
    def down(self) -> Tensor:
        """A."""
        return self.adapter.down.weight

    @property
    def up(self) -> Tensor:
        """B."""
        return self.adapter.up.weight

    def parts(self, groups: int, domains: int) -> tuple[Tensor, Tensor]:
        """The step's sums, zeros at its beginning."""
        if self.step is None:
            width, device = self.down.shape[1], self.down.device
            dtype = torch.promote_types(self.down.dtype, torch.float32)
            directions = min(groups * (domains - 1), width)
            self.step = (
                torch.zeros(groups, domains, width + 1, dtype=dtype, device=device),
                torch.zeros(directions, self.up.shape[0], dtype=dtype, device=device),
            )
        return self.step

    @torch.no_grad()
    def add(self, pair: Pair, watched: Pass, sums: _Sums) -> None:
        """Adds a use of the layer in a pass."""
        batch = watched.batch
        groups, domains = 1 if batch.predicting is None else 2, len(batch.host.counts)
        seen = self.running if self.step is None else self.step[0]
        if seen is not None and seen.shape[:2] != (groups, domains):
            raise ValueError(
                "expected as many domains in every batch, and predicting for all of them or for "
                f"none; found {domains} domains in {groups} groups of tokens after "
                f"{seen.shape[1]} in {seen.shape[0]}"
            )
        inputs, removed = self.parts(groups, domains)
        number = len(batch.host.domains)
        x, delta = (
            watched.by_sequence(t, self.name).reshape(number, -1, t.shape[-1]) for t in pair
        )
        inputs += sums.of(x)
        if self.basis is not None and not self.is_off:
            coordinates = x.flatten(0, 1) @ self.basis.to(x)
            removed += (coordinates.T.to(delta) @ delta.flatten(0, 1)).to(removed)

    def learn(self) -> None:
        """Adds the step's inputs to the running sums, unless they overflow, as float16 may."""
        if self.step is not None:
            inputs = self.step[0]
            inputs = torch.where(inputs.isfinite().all(), inputs, 0.0)  # waits for no device
            running = self.running
            self.running = inputs if running is None else inputs.add(running, alpha=DECAY)
            self.is_off = False  # a step that is not taken leaves A where it is
        self.step = None


class _Sums:
    """Sums of inputs by domain in one pass.

    Layers that share an input (query, key, value; gate, up) have their backward one after the
    other, and share its sums.
    """

    def __init__(self, watched: Pass) -> None:
        self._watched, self._batch = watched, watched.batch
        self._groups: dict[tuple[int, torch.dtype], Tensor] = {}  # by tokens of a sequence
        self.last: tuple[Tensor, Tensor] | None = None  # an input and its sums

    def of(self, x: Tensor) -> Tensor:
        """(groups, K, in + 1), the numbers of tokens last, of (batch, tokens, in)."""
        if self.last is None or not _is_same(x, self.last[0]):
            self.last = x, self._add_up(x)
        return self.last[1]

    def _add_up(self, x: Tensor) -> Tensor:
        # In float32 at least: a sum in half precision rounds away what the domains differ in.
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        mask = self._watched.mask_of(x)
        key = x.shape[1], wide.dtype
        if key not in self._groups:
            tokens = wide.new_ones(x.shape[:2]) if mask is None else mask.to(wide)
            self._groups[key] = self._in_groups(tokens)
        if mask is not None:
            wide = wide.masked_fill(~mask[..., None], 0.0)  # not a number may stand there
        groups = self._groups[key]
        # Of sequences first, then of domains: the work on the tokens does not grow with K.
        sums = torch.cat([torch.bmm(groups, wide), groups.sum(2, keepdim=True)], 2).transpose(0, 1)
        by_domain = sums.new_zeros(len(sums), len(self._batch.host.counts), sums.shape[2])
        return by_domain.index_add_(1, self._batch.domains, sums)

    def _in_groups(self, tokens: Tensor) -> Tensor:
        """(batch, groups, tokens), 1 where a token is of the group: the others, and those at which
        something is predicted. A layer that sees another number of tokens has all in the first."""
        predicting = self._batch.predicting
        if predicting is None:
            return tokens[:, None]
        is_known = predicting.shape == tokens.shape
        chosen = tokens * predicting.to(tokens) if is_known else torch.zeros_like(tokens)
        return torch.stack([tokens - chosen, chosen], 1)


def _is_same(x: Tensor, other: Tensor) -> bool:
    """Whether both are one tensor in memory; false where a device cannot tell."""
    try:
        return bool(x.is_set_to(other))
    except (NotImplementedError, RuntimeError):
        return False


def _local_grad(parameter: Tensor) -> Tensor | None:
    """A parameter's gradient, this rank's rows of it."""
    return None if parameter.grad is None else local(parameter.grad)


def domain_directions(running: Tensor) -> Tensor:
    """Orthonormal bases P (n, in, groups x (K - 1)) of the differences between domains' means.

    Args:
        running: (n, groups, K, in + 1), sums of inputs and, last, numbers of tokens. A domain
            without tokens in a group, or long without, has no mean there and adds no direction.

    Returns:
        Columns of zeros where there are fewer directions.

    Choice: a direction counts whose singular value is more than the rounding of the means. By the
    Gram matrix of the differences values below 1e-8 of the largest are lost; it is used for float32
    in float64 alone, where the rounding of the means is far above that. Else the SVD is taken.
    """
    counts = running[..., -1:]
    has_tokens = counts > LEAST
    means = torch.where(has_tokens, running[..., :-1] / counts.clamp_min(LEAST), 0.0)
    center = means.sum(2, keepdim=True) / has_tokens.sum(2, keepdim=True).clamp_min(1)
    differences = torch.where(has_tokens, means - center, 0.0).flatten(1, 2)
    wide = widest_dtype(running.device)
    if running.dtype == wide:
        _, values, right = torch.linalg.svd(differences, full_matrices=False)
    else:
        values, right = _by_gram_matrix(differences.to(wide))
    rank = running.shape[1] * (running.shape[2] - 1)
    eps = torch.finfo(running.dtype).eps * max(differences.shape[1:])
    # The differences' rounding is that of the means.
    size = means.flatten(1).norm(dim=1, keepdim=True)
    is_direction = values[:, :rank] > eps * size
    basis = torch.where(is_direction[..., None], right[:, :rank], 0.0).to(running)
    return basis.mT  # its rows stay dense: a product with few columns is several times faster so


def _by_gram_matrix(matrices: Tensor) -> tuple[Tensor, Tensor]:
    """Singular values and right vectors, in rows, of (n, rows, columns), from small (rows x rows)
    matrices, all of them at once."""
    squares, left = torch.linalg.eigh(matrices @ matrices.mT)
    number = min(matrices.shape[1:])
    values = squares.flip(1)[:, :number].clamp_min(0).sqrt()
    right = left.flip(2)[..., :number].mT @ matrices
    return values, right / values.clamp_min(torch.finfo(values.dtype).tiny)[..., None]


def _stacks(
    parts: Iterable[tuple[_Layer, tuple[Tensor | None, ...]]],
) -> Iterator[tuple[list[_Layer], list[Tensor]]]:
    """Layers whose tensors are there and have the same shapes, and these stacked, (n, ...) each.

    One call for all is several times faster than one a layer.
    """
    alike: dict[object, list[tuple[_Layer, list[Tensor]]]] = {}
    for layer, tensors in parts:
        own = [tensor for tensor in tensors if tensor is not None]
        if len(own) == len(tensors):
            key = tuple((tensor.shape, tensor.dtype) for tensor in own)
            alike.setdefault(key, []).append((layer, own))
    for found in alike.values():
        columns = zip(*(own for _, own in found), strict=True)
        yield [layer for layer, _ in found], [torch.stack(column) for column in columns]
