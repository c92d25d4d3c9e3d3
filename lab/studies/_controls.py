"""What could explain a gain: a run's multipliers in another order, domains that are labels alone.

A multiplier moves the model by itself times the step's learning rate. Through a warm-up the rate is
small and the multiplier of a brake large: controls that take every step for alike take larger steps
than the run that they control. `scheduled_mean` and `scheduled_shuffle` weigh by the rate.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Sequence
from typing import Any


def shuffle_domains(rows: Sequence[dict[str, Any]], seed: int) -> list[dict[str, Any]]:
    """Isomer sets whose members' domain labels change places, set by set."""
    rng = random.Random(f"shuffled domains {seed}")
    sets: dict[Any, list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        sets[row["isomer_id"]].append(row)
    shuffled = []
    for members in sets.values():
        labels = rng.sample([row["domain"] for row in members], len(members))
        shuffled += [row | {"domain": label} for row, label in zip(members, labels, strict=True)]
    return shuffled


def use_random_directions(engine: Any, seed: int) -> None:
    """Has the direction space project off as many random directions, the same in every step."""
    import torch

    from poise.iga.direction_space import DirectionSpace

    generator = torch.Generator().manual_seed(seed)

    class RandomDirections(DirectionSpace):
        def _find_directions(self) -> None:
            for layer in self._layers:
                if layer.running is not None and layer.basis is None:
                    groups, domains, width = layer.running.shape
                    drawn = torch.randn(width - 1, groups * (domains - 1), generator=generator)
                    layer.basis = torch.linalg.qr(drawn.to(layer.running))[0]

    kept_off = engine.method.applied_to == "update"
    engine._space = RandomDirections(engine.adapters, kept_off)


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
