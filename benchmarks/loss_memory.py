"""What a distillation loss keeps for its backward, in units of tokens x vocabulary x 4 bytes.

    python benchmarks/loss_memory.py [--tokens 1024] [--vocab 49152] [--hidden 576] [--tile 64]

Kept: the bytes that autograd saves while the loss is computed and still holds when it is done, each
storage once. Hidden states and heads are not counted. The gradients that Poise's loss saves are,
and so are the student's logits where TRL's loss saves them (top-k). Peak: the most that is alive
at one time on the way from hidden states to gradients, everybody's logits included.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")

import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from trl.experimental.sdpo.loss_utils import (
    compute_full_logit_self_distillation_loss,
    compute_topk_self_distillation_loss,
)

from poise.loss.divergence import Divergence
from poise.loss.tiled import tiled_distillation_loss


@dataclass(frozen=True)
class Case:
    """A loss: its inputs from the hidden states, and the scalar from its inputs."""

    key: str
    name: str
    inputs: Callable[[], tuple[Tensor, Tensor]]
    loss: Callable[[Tensor, Tensor], Tensor]


class Problem:
    """Hidden states of student and teacher, and a head that they share."""

    def __init__(self, tokens: int, vocabulary: int, hidden: int, tile: int) -> None:
        torch.manual_seed(0)
        self.student = torch.randn(tokens, hidden, requires_grad=True)
        self.teacher = self.student.detach() + 0.1 * torch.randn(tokens, hidden)
        self.head = nn.Linear(hidden, vocabulary, bias=False).requires_grad_(False)
        self.trained_head = nn.Linear(hidden, vocabulary, bias=False)
        self.tokens = torch.randint(vocabulary, (tokens,))
        self.weights = torch.full((tokens,), 1 / tokens)
        self.tile = tile

    def given(self) -> list[Tensor]:
        """The leaves, which no loss pays for."""
        return [
            self.student,
            self.teacher,
            self.weights,
            self.head.weight,
            self.trained_head.weight,
        ]

    def forget_gradients(self) -> None:
        self.student.grad = self.trained_head.weight.grad = None

    def states(self) -> tuple[Tensor, Tensor]:
        return self.student, self.teacher

    def logits(self) -> tuple[Tensor, Tensor]:
        with torch.no_grad():
            teacher = self.head(self.teacher)
        return self.head(self.student), teacher

    def tiled(self, head: nn.Module) -> Callable[[Tensor, Tensor], Tensor]:
        def loss(student: Tensor, teacher: Tensor) -> Tensor:
            return tiled_distillation_loss(
                student,
                teacher,
                head,
                self.head,
                self.tokens,
                self.weights,
                divergence=Divergence("full_logits", alpha=0.5),
                tile_tokens=self.tile,
            ).loss

        return loss


def trl_full(alpha: float) -> Callable[[Tensor, Tensor], Tensor]:
    def loss(student: Tensor, teacher: Tensor) -> Tensor:
        return compute_full_logit_self_distillation_loss(
            student, teacher, distillation_alpha=alpha
        ).mean()

    return loss


def trl_topk(student: Tensor, teacher: Tensor) -> Tensor:
    return compute_topk_self_distillation_loss(
        student,
        teacher,
        distillation_topk=min(100, student.shape[-1]),
        distillation_alpha=0.5,
        distillation_add_tail=True,
    ).mean()


def cases(problem: Problem) -> list[Case]:
    states, logits = problem.states, problem.logits
    return [
        Case("poise_tiled", "Poise, Jensen-Shannon", states, problem.tiled(problem.head)),
        Case("", "Poise, and the head is trained", states, problem.tiled(problem.trained_head)),
        Case("trl_full_jsd", "TRL, Jensen-Shannon", logits, trl_full(0.5)),
        Case("trl_full_reverse", "TRL, reverse KL", logits, trl_full(1.0)),
        Case("trl_topk", "TRL, top 100 and tail", logits, trl_topk),
    ]


class _Saved:
    """Stands for a saved tensor in the graph, and dies with the graph's node."""

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor.detach()


class SavedBytes:
    """Collects what autograd saves inside its context."""

    def __init__(self) -> None:
        self._alive: weakref.WeakSet[_Saved] = weakref.WeakSet()

    def hooks(self) -> saved_tensors_hooks:
        return saved_tensors_hooks(self._pack, lambda saved: saved.tensor)

    def _pack(self, tensor: Tensor) -> _Saved:
        saved = _Saved(tensor)
        self._alive.add(saved)
        return saved

    def still_alive(self, without: Sequence[Tensor]) -> int:
        """Bytes of the storages that are still saved, each once, except those of ``without``."""
        excluded = {_storage_id(tensor) for tensor in without}
        storages = {_storage_id(s.tensor): s.tensor.untyped_storage() for s in self._alive}
        return sum(s.nbytes() for identity, s in storages.items() if identity not in excluded)


class PeakBytes(TorchDispatchMode):
    """Follows the storages that operations make, and the most that live at one time."""

    def __init__(self) -> None:
        super().__init__()
        self._known: set[int] = set()
        self._now = 0
        self.peak = 0

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        result = function(*args, **kwargs or {})
        # A view, or an operation in place, makes no storage.
        given = {_storage_id(leaf) for leaf in tree_leaves((args, kwargs)) if _is_tensor(leaf)}
        for leaf in filter(_is_tensor, tree_leaves(result)):
            if _storage_id(leaf) not in given | self._known:
                self._follow(leaf.untyped_storage())
        return result

    def _follow(self, storage: torch.UntypedStorage) -> None:
        size, identity = storage.nbytes(), storage._cdata
        self._known.add(identity)
        self._now += size
        self.peak = max(self.peak, self._now)
        weakref.finalize(storage, self._forget, identity, size)

    def _forget(self, identity: int, size: int) -> None:
        self._known.discard(identity)
        self._now -= size


def _is_tensor(value: Any) -> bool:
    return isinstance(value, Tensor)


def _storage_id(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata


@dataclass(frozen=True)
class Measured:
    """Bytes kept for the backward, and at the peak of forward and backward."""

    case: Case
    kept: int
    peak: int


def measure(case: Case, problem: Problem, peak_too: bool) -> Measured:
    saved = SavedBytes()
    with PeakBytes() as peak:
        inputs = case.inputs()
        with saved.hooks():
            loss = case.loss(*inputs)
        kept = saved.still_alive(without=problem.given())
        if peak_too:
            loss.backward()
    problem.forget_gradients()
    return Measured(case, kept, peak.peak)


def table(results: Sequence[Measured], arguments: argparse.Namespace) -> Table:
    unit = 4 * arguments.tokens * arguments.vocab
    tiles = math.ceil(arguments.tokens / arguments.tile)
    shown = Table(
        title=f"{arguments.tokens} tokens x {arguments.vocab} vocabulary, float32: "
        f"one unit is {unit / 2**20:.0f} MiB",
        caption=f"Poise: {tiles} tiles of {arguments.tile} tokens. A trained head adds one "
        f"gradient of its own size, {4 * arguments.hidden * arguments.vocab / 2**20:.0f} MiB "
        "whatever the number of tokens.",
    )
    shown.add_column("loss")
    for column in ("kept (units)", "kept (MiB)", "peak (units)"):
        shown.add_column(column, justify="right")
    for r in results:
        sizes = f"{r.kept / unit:.3f}", f"{r.kept / 2**20:.1f}", f"{r.peak / unit:.2f}"
        shown.add_row(r.case.name, *sizes)
    return shown


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tokens", type=int, default=1024)
    parser.add_argument("--vocab", type=int, default=49_152)
    parser.add_argument("--hidden", type=int, default=576)
    parser.add_argument("--tile", type=int, help="tokens in a tile (default: for 16 tiles)")
    parser.add_argument("--json", action="store_true", help="print one object, in units")
    arguments = parser.parse_args(argv)
    for name in ("tokens", "vocab", "hidden", "tile"):
        if getattr(arguments, name) is not None and getattr(arguments, name) < 1:
            parser.error(f"--{name} must be at least 1, found {getattr(arguments, name)}")
    if arguments.tile is None:
        arguments.tile = max(1, arguments.tokens // 16)
    return arguments


def main(argv: Sequence[str] | None = None) -> None:
    arguments = parse(argv)
    problem = Problem(arguments.tokens, arguments.vocab, arguments.hidden, arguments.tile)
    wanted = [case for case in cases(problem) if case.key or not arguments.json]
    progress = track(wanted, "measuring", console=Console(stderr=True), transient=True)
    results = [measure(case, problem, peak_too=not arguments.json) for case in progress]
    if arguments.json:
        unit = 4 * arguments.tokens * arguments.vocab
        print(json.dumps({r.case.key: round(r.kept / unit, 4) for r in results}))
    else:
        Console().print(table(results, arguments))


if __name__ == "__main__":
    main()
