"""Problems of known noise for `weak_order`: a bowl, perhaps rippled, and a signal in space."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from poise.pgpo.viscosity import Viscosity

Array = NDArray[np.float64]

# Standard normal moments up to the fifth, and bounded: no step leaves a box.
_NODES = (-np.sqrt(3.0), 0.0, np.sqrt(3.0))
_WEIGHTS = (1 / 6, 2 / 3, 1 / 6)


@dataclass(frozen=True)
class Family:
    """What the random problems of one name have in common.

    Args:
        dimensions: Of theta.
        ripple: Height of the waves upon the quadratic bowl; noise has them too.
        signal: Least and greatest information signal, in nats.
        wave: Of the signal, in radians per unit of theta.
    """

    dimensions: int
    ripple: float
    signal: tuple[float, float]
    wave: float = 1.0


# With sensitivity 1 and bounds 1 and 2 the law is smooth for signals between 0 and log 2 = 0.69,
# and only Lipschitz where they leave that range.
FAMILIES: Mapping[str, Family] = {
    "quadratic 2d": Family(2, 0.0, (0.2, 0.5)),
    "rippled 1d": Family(1, 0.15, (0.2, 0.5)),
    "clipped 1d": Family(1, 0.15, (-0.5, 1.2), wave=4.0),
}


class Problem:
    """One random problem: loss, noise, signal and start.

    ``L = theta^T H theta / 2 + r sum_i sin(2 theta_i + phi_i)``, ``Sigma^{1/2} = (1 + 2 r
    sin(theta_1 + phi_1)) A`` with ripple r, and ``I = low + (high - low) (1 + sin(w theta + psi))
    / 2``. Drawn: H with eigenvalues in [0.7, 1.3], A, phases, w and the start.

    Args:
        family: Its name.
        seed: Of what is drawn.
        law: From signal to multiplier.
    """

    def __init__(self, family: str, seed: int, law: Viscosity) -> None:
        self.family, self.law = FAMILIES[family], law
        random = np.random.default_rng(seed)
        d = self.dimensions = self.family.dimensions
        turn = np.linalg.qr(random.normal(size=(d, d)))[0]
        self.hessian = turn @ np.diag(random.uniform(0.7, 1.3, d)) @ turn.T
        self.root = 0.1 * random.normal(size=(d, d)) + np.diag(random.uniform(0.3, 0.5, d))
        self.phases = random.uniform(0, 2 * np.pi, d)
        self.wave = self.family.wave * random.uniform(0.8, 1.2, d) / np.sqrt(d)
        self.shift = random.uniform(0, 2 * np.pi)
        self.start = random.uniform(0.8, 1.4, d) * random.choice([-1, 1], d)

    def gradient(self, points: Array) -> Array:
        """Of the loss; shapes (n, d)."""
        waves = 2 * self.family.ripple * np.cos(2 * points + self.phases)
        slope: Array = points @ self.hessian + waves
        return slope

    def noise_root(self, points: Array) -> Array:
        """Sigma^{1/2}, shape (n, d, d)."""
        scale = 1 + 2 * self.family.ripple * np.sin(points[:, 0] + self.phases[0])
        root: Array = scale[:, None, None] * self.root
        return root

    def multiplier(self, points: Array, noise: float = 0.0) -> Array:
        """rho(I(theta) + noise), shape (n,), by PGPO's own law."""
        low, high = self.family.signal
        signal = low + (high - low) * (1 + np.sin(points @ self.wave + self.shift)) / 2 + noise
        state = self.law.init()
        return np.array([self.law.step(float(value), state)[0] for value in signal])

    def updates(self, points: Array, coupling: float) -> tuple[Array, Array]:
        """What an iteration subtracts, per unit of learning rate, for each value of its noise.

        Args:
            points: Shape (n, d).
            coupling: Nats by which a unit of the gradient's first noise moves the signal.

        Returns:
            Probabilities, shape (m,), and rho (grad L + Sigma^{1/2} xi), shape (m, n, d).
        """
        gradient, root = self.gradient(points), self.noise_root(points)
        found = []
        for xi in itertools.product(_NODES, repeat=self.dimensions):
            rho = self.multiplier(points, coupling * xi[0])
            found.append(rho[:, None] * (gradient + root @ np.array(xi)))
        weights = [np.prod(w) for w in itertools.product(_WEIGHTS, repeat=self.dimensions)]
        return np.array(weights), np.array(found)
