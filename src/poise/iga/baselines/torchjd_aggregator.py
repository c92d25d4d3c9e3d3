"""TorchJD's aggregators, by their names there, and PCGrad by them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor

from ..settings import Aggregator


@dataclass(kw_only=True)
class TorchJD(Aggregator):
    """Any stateless aggregator of TorchJD on the rows K w_k g_k (g_k where domains weigh equally).

    What it draws at random follows from the seed and the number of aggregations before, so ranks
    agree, a resumed run goes on as it would have, and torch's own generators are left alone.

    Symbols: g_k -> gradients (K, P); w_k -> weights (K,).

    Args:
        name: of a class in `torchjd.aggregation`, e.g. "MGDA".
        arguments: of that class.

    Raises:
        ImportError: TorchJD is missing, or what it needs for this aggregator.
        ValueError: an unknown aggregator, arguments that it does not take, or one with a state,
            which a checkpoint could not keep.

    Reference: Quinton and Rey 2024, arXiv 2406.16232.
    """

    name: str = "Mean"
    arguments: Mapping[str, Any] = field(default_factory=dict)

    paper: ClassVar = ("Jacobian Descent for Multi-Objective Optimization", "2406.16232")

    def __post_init__(self) -> None:
        self._aggregate = _build(self.name, self.arguments)
        self._calls = 0

    def __call__(self, gradients: Tensor, weights: Tensor) -> Tensor:
        rows = gradients * (len(gradients) * weights.to(gradients))[:, None]
        with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
            # The CPU's generator takes 32 bits of it.
            torch.manual_seed((self.seed * 1_000_003 + self._calls) % 2**32)
            result: Tensor = self._aggregate(rows)
        self._calls += 1
        return result

    def state_dict(self) -> dict[str, Any]:
        return super().state_dict() | {"calls": self._calls}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self._calls = state["calls"]


@dataclass(kw_only=True)
class PCGrad(Aggregator):
    """Projecting conflicting gradients, by TorchJD.

    sum_k w_k p_k, where p_k is g_k after, for each other domain j in random order,
    p_k <- p_k - min(0, p_k . g_j) / |g_j|^2 * g_j, algorithm 1. Inner products are over all factors
    together.

    Symbols: g_k -> gradients (K, P); w_k -> weights (K,).

    Raises:
        ImportError: TorchJD is missing.

    Reference: Yu et al. 2020, arXiv 2001.06782.
    Choice: w_k averages where the paper sums, so that without conflicts it is plain fine-tuning.
    """

    paper: ClassVar = ("Gradient Surgery for Multi-Task Learning", "2001.06782")

    def __post_init__(self) -> None:
        self._sum = TorchJD(name="PCGrad", seed=self.seed)

    def __call__(self, gradients: Tensor, weights: Tensor) -> Tensor:
        number = len(gradients)
        conflicts = (gradients @ gradients.T < 0).sum() / max(1, number * (number - 1))
        self.figures.add("conflicts", conflicts)
        return self._sum(gradients, weights) / number

    def state_dict(self) -> dict[str, Any]:
        return super().state_dict() | {"order": self._sum.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self._sum.load_state_dict(state["order"])


def _build(name: str, arguments: Mapping[str, Any]) -> Any:
    try:
        import torchjd
        from torchjd import aggregation
    except ImportError as error:
        raise ImportError(
            f"{name} is TorchJD's, which is not installed; pip install 'poise[baselines]'"
        ) from error
    kind = getattr(aggregation, name, None)
    if not (isinstance(kind, type) and issubclass(kind, aggregation.Aggregator)):
        others = ("Weighting", "Aggregator")
        known = ", ".join(n for n in aggregation.__all__ if not n.endswith(others))
        raise ValueError(f"expected an aggregator of TorchJD among {known}; found {name!r}")
    if issubclass(kind, torchjd.Stateful):
        raise ValueError(
            f"TorchJD's {name} keeps a state from step to step, which checkpoints do not hold; "
            "expected an aggregator without"
        )
    try:
        return kind(**arguments)
    except TypeError as error:
        raise ValueError(f"iga_method_options do not fit TorchJD's aggregator: {error}") from error
