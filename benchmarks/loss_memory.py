"""What a distillation loss costs: Poise's, TRL's SDPO's, and that of TRL's kernels, side by side.

    python benchmarks/loss_memory.py [--tokens 1024] [--vocab 49152] [--hidden 576] [--tile 64]
                                     [--device cpu] [--rounds 3]

The unit of memory is tokens x vocabulary x 4 bytes. Kept: the bytes that autograd saves while the
loss is computed and still holds when it is done, each storage once. Hidden states and heads are not
counted. The gradients that Poise's loss saves are, and so are the student's logits where TRL's loss
saves them (top-k). Peak: the most that is alive at one time on the way from hidden states to
gradients, everybody's logits included. Products: how often all tokens are multiplied with a whole
head on that way. Time: of the same, the median of the rounds, in which all take turns.

TRL's kernels are its `DistillationTrainer`'s: torch's operations on a CPU, Triton's on a GPU. They
give the divergence and the student's entropy. Poise's loss gives the teacher's entropy, KL and both
log-probabilities of the sampled tokens as well, which the information signal reads.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import time
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
from trl.kernels.chunked_divergence import ChunkedDivergenceFunction

from poise.loss.divergence import Divergence
from poise.loss.tiled import tiled_distillation_loss

aten = torch.ops.aten


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

    def kernel(self, alpha: float) -> Callable[[Tensor, Tensor], Tensor]:
        weight = self.head.weight

        def loss(student: Tensor, teacher: Tensor) -> Tensor:
            divergences, _entropies = ChunkedDivergenceFunction.apply(
                student, weight, None, teacher, weight, None, alpha
            )
            return divergences.mean()

        return loss

    def tiled(self, head: nn.Module, alpha: float) -> Callable[[Tensor, Tensor], Tensor]:
        def loss(student: Tensor, teacher: Tensor) -> Tensor:
            return tiled_distillation_loss(
                student,
                teacher,
                head,
                self.head,
                self.tokens,
                self.weights,
                divergence=Divergence("full_logits", alpha),
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
    trained = problem.tiled(problem.trained_head, 0.5)
    return [
        Case("poise_tiled", "Poise, Jensen-Shannon", states, problem.tiled(problem.head, 0.5)),
        Case("", "Poise, and the head is trained", states, trained),
        Case("poise_reverse", "Poise, reverse KL", states, problem.tiled(problem.head, 1.0)),
        Case("trl_full_jsd", "TRL, Jensen-Shannon", logits, trl_full(0.5)),
        Case("trl_full_reverse", "TRL, reverse KL", logits, trl_full(1.0)),
        Case("trl_topk", "TRL, top 100 and tail", logits, trl_topk),
        Case("trl_kernel_jsd", "TRL's kernel, Jensen-Shannon", states, problem.kernel(0.5)),
        Case("trl_kernel_reverse", "TRL's kernel, reverse KL", states, problem.kernel(1.0)),
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
    """Follows the storages that operations make, and the most that live at one time.

    Beside it counts the multiplications of matrix products.
    """

    def __init__(self) -> None:
        super().__init__()
        self._known: set[int] = set()
        self._now = 0
        self.peak = 0
        self.multiplications = 0

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        result = function(*args, **kwargs or {})
        if function.overloadpacket in (aten.mm, aten.addmm, aten.addmm_):
            left, right = [argument for argument in args if _is_tensor(argument)][-2:]
            self.multiplications += left.numel() * right.shape[-1]
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
    """Bytes kept for the backward; bytes at the peak and products of forward and backward."""

    case: Case
    kept: int
    peak: int
    products: float


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
    products = peak.multiplications / len(problem.tokens) / problem.head.weight.numel()
    return Measured(case, kept, peak.peak, products)


def seconds(cases: Sequence[Case], problem: Problem, rounds: int) -> list[float]:
    """The median time of each case, from hidden states to gradients."""
    times: list[list[float]] = [[] for _ in cases]
    for _ in range(rounds):
        for case, found in zip(cases, times, strict=True):
            start = _now()
            case.loss(*case.inputs()).backward()
            found.append(_now() - start)
            problem.forget_gradients()
    return [statistics.median(found) for found in times]


def _now() -> float:
    if torch.get_default_device().type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def table(
    results: Sequence[Measured], times: Sequence[float], arguments: argparse.Namespace
) -> Table:
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
    for column in ("kept (units)", "kept (MiB)", "peak (units)", "products", "time (s)"):
        shown.add_column(column, justify="right")
    for r, time_ in zip(results, times, strict=True):
        sizes = f"{r.kept / unit:.3f}", f"{r.kept / 2**20:.1f}", f"{r.peak / unit:.2f}"
        shown.add_row(r.case.name, *sizes, f"{r.products:.1f}", f"{time_:.3f}")
    return shown


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tokens", type=int, default=1024)
    parser.add_argument("--vocab", type=int, default=49_152)
    parser.add_argument("--hidden", type=int, default=576)
    parser.add_argument("--tile", type=int, help="tokens in a tile (default: for 16 tiles)")
    parser.add_argument("--rounds", type=int, default=3, help="how often time is taken")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--json", action="store_true", help="print one object, in units")
    arguments = parser.parse_args(argv)
    for name in ("tokens", "vocab", "hidden", "tile", "rounds"):
        if getattr(arguments, name) is not None and getattr(arguments, name) < 1:
            parser.error(f"--{name} must be at least 1, found {getattr(arguments, name)}")
    if arguments.tile is None:
        arguments.tile = max(1, arguments.tokens // 16)
    return arguments


def main(argv: Sequence[str] | None = None) -> None:
    arguments = parse(argv)
    torch.set_default_device(arguments.device)
    problem = Problem(arguments.tokens, arguments.vocab, arguments.hidden, arguments.tile)
    wanted = [case for case in cases(problem) if case.key or not arguments.json]
    progress = track(wanted, "measuring", console=Console(stderr=True), transient=True)
    results = [measure(case, problem, peak_too=not arguments.json) for case in progress]
    if arguments.json:
        unit = 4 * arguments.tokens * arguments.vocab
        print(json.dumps({r.case.key: round(r.kept / unit, 4) for r in results}))
    else:
        times = seconds(wanted, problem, arguments.rounds)
        Console(width=110).print(table(results, times, arguments))


if __name__ == "__main__":
    main()
