"""Controls of PGPO: what a run's multipliers explain as a mean, or in another order.

A multiplier moves the model by itself times the step's learning rate. Through a warm-up the rate is
small and the multiplier of a brake large: controls that treat all steps alike take larger steps
than the run that they control. `scheduled_mean` and `scheduled_shuffle` weigh by the rate.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Sequence
from typing import Any


def rates(args: Any) -> list[float]:
    """The learning rate of each step, as a share of the highest.

    Args:
        args: a `TrainingArguments` with `max_steps`.
    """
    import torch
    from transformers import get_scheduler

    steps = args.max_steps
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    schedule = get_scheduler(
        args.lr_scheduler_type,
        optimizer,
        args.get_warmup_steps(steps),
        steps,
        args.lr_scheduler_kwargs,
    )
    found: list[float] = []
    for _ in range(steps):
        found.append(schedule.get_last_lr()[0])
        optimizer.step()
        schedule.step()
    return found


def scheduled_mean(multipliers: Sequence[float], rates: Sequence[float]) -> float:
    """The one multiplier with which these steps had moved as far; 1 if none of them moved."""
    weight = sum(rates)
    if weight == 0:
        return 1.0
    return sum(rho * rate for rho, rate in zip(multipliers, rates, strict=True)) / weight


def scheduled_shuffle(
    multipliers: Sequence[float], rates: Sequence[float], rng: random.Random
) -> list[float]:
    """Multipliers in another order, each at a step of the rate that it had.

    With a warm-up and a constant rate after it: those of the warm-up stay where they are.
    """
    places: dict[float, list[int]] = defaultdict(list)
    for i, rate in enumerate(rates):
        places[rate].append(i)
    shuffled = list(multipliers)
    for indices in places.values():
        order = list(indices)
        rng.shuffle(order)
        for i, j in zip(indices, order, strict=True):
            shuffled[i] = multipliers[j]
    return shuffled
