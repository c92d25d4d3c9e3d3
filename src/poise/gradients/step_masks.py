"""Masks that act on an optimizer's steps, from running means of the domains' gradients."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..core.conflict import Moments
from ..methods.iga import IGA

DECAY = 0.9  # of the running sums, a step
LONGEST = 10.0  # the most by which a masked step is made longer


class StepMasks:
    r"""Turns each factor's step off what the domains disagree on, without making it shorter.

    With :math:`e_k` the running mean of domain k's gradient of a factor, V their variance over
    domains and :math:`u` the step that the optimizer takes,

    .. math:: u \leftarrow r\, M \odot u, \qquad M = \exp(-\tau V / \mathrm{scale}), \qquad
        r = \min(|u| / |M \odot u|,\ 10)

    An adaptive optimizer divides a gradient by its own running size, so a mask on the gradient is
    undone as far as it stays the same from step to step. Here the moments see the plain gradient.

    Domains weigh alike in the mask (Choice). A step before two domains are known is left alone.

    Args:
        factors: P elements in all, in the order of the columns of `learn`'s gradients.
        method: the mask's law.
    """

    def __init__(self, factors: Sequence[Tensor], method: IGA) -> None:
        self._factors, self._method = factors, method
        self._running: Tensor | None = None  # (K, P + 1): sums, and how many steps they are of
        self._known: set[int] = set()  # domains that have been seen
        self._tau = 0.0
        self._before: list[Tensor] = []

    @torch.no_grad()
    def learn(self, gradients: Tensor, present: Sequence[int], domains: int, tau: float) -> None:
        """Adds a step's gradients, before the optimizer takes it.

        Args:
            gradients: (n, P), of the domains that are present.
            present: their n numbers.
            domains: K.
            tau: the step's temperature.
        """
        if self._running is None:
            self._running = gradients.new_zeros(domains, gradients.shape[1] + 1)
        self._running *= DECAY
        for row, domain in enumerate(present):
            self._running[domain, :-1] += gradients[row]
            self._running[domain, -1] += 1
        self._known |= set(present)
        self._tau = tau

    @torch.no_grad()
    def before(self) -> None:
        """Keeps the factors as they are."""
        self._before = [factor.detach().clone() for factor in self._factors]

    @torch.no_grad()
    def after(self) -> None:
        """Masks what the optimizer added to them."""
        before, self._before = self._before, []
        if self._running is None or len(self._known) < 2:
            return
        known = sorted(self._known)
        means = self._running[known, :-1] / self._running[known, -1:]
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
        """The running sums, (K, P + 1)."""
        return {} if self._running is None else {"running": self._running}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Takes `state_dict`'s.

        Raises:
            ValueError: of another space, or of other factors.
        """
        running = state.get("running")
        size = sum(factor.numel() for factor in self._factors) + 1
        if set(state) - {"running"} or (running is not None and running.shape[1] != size):
            raise ValueError(
                f"state: expected running sums of {size - 1} elements, found "
                f"{', '.join(f'{k} {tuple(v.shape)}' for k, v in state.items()) or 'none'}; it "
                "belongs to another space or model"
            )
        if running is not None:
            self._running = running.to(self._factors[0].device)
            self._known = set(running[:, -1].nonzero()[:, 0].tolist())
