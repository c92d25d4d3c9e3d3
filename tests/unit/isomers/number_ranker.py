"""Guesses the right one of several numbers from what is read off the numbers alone."""

from __future__ import annotations

import numpy as np

DIVISORS = (2, 3, 4, 5, 6, 7, 8, 9, 10)


def properties(options: np.ndarray) -> dict[str, np.ndarray]:
    """Properties of each number beside the others of its row, (problems, options) each."""
    one, other = options[:, :, None], options[:, None, :]
    count = options.shape[1]
    apart = ~np.eye(count, dtype=bool)
    far = np.where(apart, np.abs(one - other), 0)
    near = np.where(apart, far, far.max() + 1)
    rank = (one > other).sum(2)
    mean = options.mean(1, keepdims=True)
    found = {f"multiple of {n}": options % n == 0 for n in DIVISORS}
    found |= {f"digits {n}": np.floor(np.log10(options)) + 1 == n for n in (1, 2)}
    found |= {f"rank {n}": rank == n for n in range(count)}
    found |= {f"last digit {n}": options % 10 == n for n in (1, 3, 7, 9)}
    found |= {f"neighbour at {n}": ((far == n) & apart).any(2) for n in (1, 2, 3, 10)}
    found |= {
        "size": np.log(options),
        "nearest": np.log(near.min(2)),
        "farthest": np.log(far.max(2)),
        "lonely": near.min(2) == near.min(2).max(1, keepdims=True),
        "central": np.abs(options - mean) / options.std(1, keepdims=True),
        "others of its parity": ((one - other) % 2 == 0).sum(2),
        "others of its last digit": ((one - other) % 10 == 0).sum(2),
        "others of its tens": (one // 10 == other // 10).sum(2),
        "divides": (other % one == 0).sum(2),
        "divisible": (one % other == 0).sum(2),
        "common factors": np.log(np.gcd(one, other)).sum(2) - np.log(options),
        "sum of two": (one == other + np.roll(other, 1, axis=2)).any(2),
    }
    return {name: values.astype(float) for name, values in found.items()}


def held_out_choices(features: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Which right numbers are found, each half of the problems learned from the other half.

    A linear ranker: one Newton step of the conditional logistic regression from zero.

    Args:
        features: (problems, options, properties).
        right: Place of the right number, (problems,).
    """
    centred = features - features.mean(1, keepdims=True)
    centred = centred / (centred.std((0, 1)) + 1e-9)
    hits = np.zeros(len(right), dtype=bool)
    halves = np.arange(len(right)) % 2 == 0
    for learn in (halves, ~halves):
        gradient = centred[learn, right[learn]].sum(0)
        rows = centred[learn].reshape(-1, centred.shape[2])
        curvature = rows.T @ rows / features.shape[1]
        ridge = 0.05 * learn.sum() * np.eye(len(gradient))
        weights = np.linalg.solve(curvature + ridge, gradient)
        hits[~learn] = (centred[~learn] @ weights).argmax(1) == right[~learn]
    return hits


def oddness(values: np.ndarray, right: np.ndarray) -> float:
    """Standard deviations by which the right numbers' property is not that of the options."""
    centred = values - values.mean(1, keepdims=True)
    spread = np.sqrt(centred.var(1).sum())
    return float(centred[np.arange(len(right)), right].sum() / spread) if spread else 0.0
