"""Masks that act on an optimizer's steps, from running means of the domains' gradients."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .invariant import IGA
from .mask import Moments

DECAY = 0.9  # of the running sums, a step
LEAST = 1e-3  # what a domain's steps weigh in them, below which it is forgotten
LONGEST = 10.0  # the most by which a masked step is made longer


class StepMasks:
    r"""Turns each factor's step off what the domains disagree on, without making it shorter.

    With :math:`e_k` the running mean of domain k's gradient of a factor, V their variance over
    domains and :math:`u` the step that the optimizer takes,

    .. math:: u \leftarrow r\, M \odot u, \qquad M = \exp(-\tau V / \mathrm{scale}), \qquad
        r = \min(|u| / |M \odot u|,\ 10)

    An adaptive optimizer divides a gradient by its own running size, so a mask on the gradient is
    undone as far as it stays the same from step to step. Here the moments see the plain gradient.

    Domains weigh alike in the mask (Choice). A step before two domains are known is left alone, and
    one that is skipped, as for gradients that are not finite, leaves the running means.

    Args:
        factors: P elements in all, in the order of the columns of `learn`'s gradients.
        method: the mask's law.
    """

    def __init__(self, factors: Sequence[Tensor], method: IGA) -> None:
        self._factors, self._method = factors, method
        self._running: Tensor | None = None  # (K, P): sums
        self._steps: list[float] = []  # of how many steps they are, K
        self._pending: tuple[Tensor, list[int], int] | None = None
        self._tau = 0.0
        self._before: list[Tensor] = []

    @torch.no_grad()
    def learn(self, gradients: Tensor, present: Sequence[int], domains: int, tau: float) -> None:
        """Takes a step's gradients, which count once the optimizer takes it.

        Args:
            gradients: (n, P), of the domains that are present.
            present: their n numbers.
            domains: K.
            tau: the step's temperature.
        """
        self._pending, self._tau = (gradients, list(present), domains), tau

    @torch.no_grad()
    def before(self) -> None:
        """Adds up the step's gradients, and keeps the factors as they are."""
        self._before = [factor.detach().clone() for factor in self._factors]
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
    def after(self) -> None:
        """Masks what the optimizer added to them."""
        before, self._before = self._before, []
        known = [k for k, steps in enumerate(self._steps) if steps > LEAST]
        if self._running is None or len(known) < 2:
            return
        means = torch.stack([self._running[k] / self._steps[k] for k in known])
        start = 0
        for factor, old in zip(self._factors, before, strict=True):
            own = means[:, start : start + factor.numel()]
            start += factor.numel()
            variance, mean = torch.var_mean(own, 0, correction=0)
            mask = self._method.mask(Moments(mean, variance), self._tau)
            step = (factor - old).to(mask)
            masked = mask.view_as(step) * step
            tiny = torch.finfo(mask.dtype).tiny
            longer = (step.norm() / masked.norm().clamp_min(tiny)).clamp_max(LONGEST)
            factor.copy_(old + longer * masked)

    def state_dict(self) -> dict[str, Tensor]:
        """The running sums, (K, P), and of how many steps they are, (K,)."""
        if self._running is None:
            return {}
        return {
            "running": self._running,
            "steps": torch.tensor(self._steps, dtype=torch.float64),
        }

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Takes `state_dict`'s.

        Raises:
            ValueError: of another space, or of other factors.
        """
        running, steps = state.get("running"), state.get("steps")
        size = sum(factor.numel() for factor in self._factors)
        if set(state) - {"running", "steps"} or (running is not None and running.shape[1] != size):
            raise ValueError(
                f"state: expected running sums of {size} elements, found "
                f"{', '.join(f'{k} {tuple(v.shape)}' for k, v in state.items()) or 'none'}; it "
                "belongs to another space or model"
            )
        if running is not None and steps is not None:
            self._running = running.to(self._factors[0].device)
            self._steps = steps.tolist()
