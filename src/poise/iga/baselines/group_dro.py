"""GroupDRO: the domains that are learnt worst weigh most."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from ..settings import Evidence, Objective, require


@dataclass(kw_only=True)
class GroupDRO(Objective):
    """Group distributionally robust optimisation, online.

    sum_k c_k L_k with c_k = w_k q_k / sum_j w_j q_j; after each optimizer step
    q_k <- q_k exp(eta L_k) / sum_j q_j exp(eta L_j), algorithm 1. At first q_k = 1 / K.

    Symbols: L_k -> evidence.losses, (K,) in nats; w_k -> evidence.weights; eta -> step_size.

    Args:
        step_size: eta, per nat; 0 is plain fine-tuning.

    Raises:
        ValueError: a negative step size.

    Reference: Sagawa et al. 2019, arXiv 1911.08731.
    Choice: q is updated once an optimizer step, with the mean losses over its micro-batches and
    ranks, so that it does not depend on how the step was divided, and is one on all ranks. A domain
    without tokens in the step counts with loss 0, as a group that is not drawn does in the paper.
    Deviation: so a step is taken with the weights that the steps before it made, where the paper
    updates first. With eta = 0.01, the authors' own, one step changes q by about a hundredth.
    """

    step_size: float = 0.01

    paper: ClassVar = ("Distributionally Robust Neural Networks for Group Shifts", "1911.08731")

    def __post_init__(self) -> None:
        require("step_size", self.step_size, low=0)
        self.q = torch.full((self.domains,), 1 / self.domains, dtype=torch.float64)
        self._seen = torch.zeros(2, self.domains)  # losses, tokens

    def __call__(self, evidence: Evidence) -> Tensor:
        losses = evidence.losses
        weights = evidence.weights * self.q.to(losses)
        weights = weights / weights.sum()
        self.figures.add("weight", weights)
        seen = torch.stack([losses.detach() * evidence.counts, evidence.counts])
        self._seen = self._seen.to(seen) + seen
        return (weights * losses).sum()

    def finish_step(self, total: Callable[[Tensor], Tensor]) -> None:
        sums, counts = total(self._seen).cpu().double()
        losses = sums / counts.clamp(min=1)
        if bool(losses.isfinite().all()):  # a step that a gradient scaler drops leaves q alone
            self.q = (self.q.log() + self.step_size * losses).softmax(0)
        self.drop_step()

    def drop_step(self) -> None:
        self._seen = torch.zeros_like(self._seen)

    def state_dict(self) -> dict[str, Any]:
        return super().state_dict() | {"q": self.q.tolist()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        if len(state["q"]) != self.domains:
            raise ValueError(
                f"state: expected weights of {self.domains} domains, found {len(state['q'])}; "
                "it belongs to a run on other data"
            )
        self.q = torch.tensor(state["q"], dtype=torch.float64)
        self.drop_step()
