"""Weak order: how fast PGPO's iterates come to a stochastic differential equation (SDE).

PGPO with plain SGD is ``theta' = theta - eta rho(I) (grad L + Sigma^{1/2} xi)``. Its theory says
that the modulated SDE

    d theta = -rho grad L dt + sqrt(eta) rho Sigma^{1/2} dW                              (modulated)

is a weak approximation of order 1: ``|E f(theta_{T/eta}) - E f(theta(T))| <= C eta`` for smooth f
and bounded, Lipschitz rho. Here the left side is computed, and `table` fits the slope of its
logarithm against that of eta.

What is tested: random problems in one and two dimensions (`_weak_problem`; a seed is a problem),
float64, no network. I is a smooth, bounded function of theta, and rho PGPO's own law
(`core.viscosity`): within its bounds, so that rho is smooth ("quadratic 2d", "rippled 1d"), and
across them, so that it is only Lipschitz ("clipped 1d"; there every path crosses a bound). The
error is the greatest over f = theta_i, theta_i theta_j and cos(sum theta). Nothing is sampled:
``E f`` is the value at the start of a function that the chain's transition matrix carries back
T/eta times, and the SDE's generator (Kolmogorov's backward equation) once, by its exponential.
What the grid adds is measured with a coarser one. It is the equation that is tested, not that I
means anything: no model and no feedback are here.

What is compared, all at the same T (`equation`):

- modulated: the above. The noise has little say in it: its contribution to E f is itself of order
  eta, so that an order of 1 says that the drift is right.
- flow: the same without noise, an ordinary differential equation, to show just that.
- plain: rho = 1. Its drift is wrong, the slope must be 0.
- second: drift ``b - eta/2 (b . grad) b``, which Li, Tai and E give order 2. A measurement that
  cannot tell it from order 1 measures nothing.
- matched: drift -E[h] and covariance eta Cov[h] of the update h itself.

`coupling` is what the theory leaves out: I is measured on the batch whose gradient it scales, so
that the two have noise in common. With ``I = I(theta) + coupling xi_1`` the mean update is not
rho grad L; the modulated SDE then has a wrong drift, the matched one has not.

Source: PGPO (arXiv 2606.03620); Li, Tai and E, JMLR 20 (2019), theorems 1 and 2.
Choice: xi has three values with the normal moments up to the fifth, which leave order 2 as it is.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import sparse
from scipy.integrate import solve_ivp
from scipy.sparse.linalg import expm_multiply

from poise.pgpo.viscosity import Viscosity

from ._weak_grid import Array, Chebyshev, Grid, Lattice, Matrix
from ._weak_problem import FAMILIES, Problem

EQUATIONS = ("modulated", "flow", "plain", "second", "matched")
_RADIUS = 3.0
_RESOLUTION = {1: 600, 2: 20}  # points a dimension
_COARSER = 0.75
_NUDGE = 1e-5  # of a difference quotient along the drift


@dataclass(frozen=True)
class Settings:
    """Of one run.

    Args:
        method, seed: Its place; the seed draws the problem.
        problem: A name of `FAMILIES`.
        learning_rate: eta, a whole fraction of `time`.
        equation: With what PGPO is compared.
        coupling: Nats by which a unit of the gradient's noise moves the signal.
        time: T.
        sensitivity, rho_min, rho_max: Of the law.
    """

    method: str
    seed: int
    problem: str
    learning_rate: float
    equation: str
    coupling: float = 0.0
    time: float = 2.0
    sensitivity: float = 1.0
    rho_min: float = 1.0
    rho_max: float = 2.0

    def __post_init__(self) -> None:
        for name, known in (("problem", FAMILIES), ("equation", EQUATIONS)):
            if (found := getattr(self, name)) not in known:
                raise ValueError(f"{name}: expected one of {', '.join(known)}, found {found!r}")
        if abs(self.steps * self.learning_rate - self.time) > 1e-9:
            raise ValueError(
                f"learning_rate: expected a whole fraction of {self.time}, found "
                f"{self.learning_rate}"
            )

    @property
    def steps(self) -> int:
        """T / eta."""
        return max(1, round(self.time / self.learning_rate))

    @property
    def law(self) -> Viscosity:
        """From signal to multiplier."""
        return Viscosity(self.sensitivity, rho_max=self.rho_max, rho_min=self.rho_min)


def check(config: Mapping[str, Any]) -> None:
    """Raises: ValueError, for settings that `run` does not take."""
    try:
        _ = Settings(**config).law
    except TypeError as error:
        raise ValueError(f"settings: {error}") from None


def run(config: Mapping[str, Any]) -> dict[str, float]:
    """`error`, and `grid`: by how much of itself it changes on a coarser grid."""
    settings = Settings(**config)
    problem = Problem(settings.problem, settings.seed, settings.law)
    resolution = _RESOLUTION[problem.dimensions]
    error = weak_error(problem, settings, resolution)
    coarse = weak_error(problem, settings, int(_COARSER * resolution))
    return {"error": error, "grid": abs(coarse - error) / error}


def weak_error(problem: Problem, settings: Settings, resolution: int) -> float:
    """Greatest ``|E f(theta_{T/eta}) - E f(theta(T))|`` over f, from the problem's start."""
    # In two dimensions all is smooth.
    line = (Lattice if problem.dimensions == 1 else Chebyshev)(resolution, _RADIUS)
    grid = Grid(line, problem.dimensions)
    start = grid.values_at(problem.start[None])
    ends = observables(grid.points)
    chain, step = ends, transition(problem, grid, settings)
    for _ in range(settings.steps):
        chain = step @ chain
    if settings.equation == "flow":
        reference = observables(_flow(problem, settings))
    else:
        operator = generator(problem, grid, settings)
        reference = start @ expm_multiply(settings.time * operator, ends)
    return float(np.abs(start @ chain - reference).max())


def transition(problem: Problem, grid: Grid, settings: Settings) -> Matrix:
    """Matrix of ``f -> E f(theta - eta h)``, exact but for the interpolation."""
    weights, updates = problem.updates(grid.points, settings.coupling)
    pairs = zip(weights, grid.points - settings.learning_rate * updates, strict=True)
    return sum(weight * grid.values_at(after) for weight, after in pairs)


def generator(problem: Problem, grid: Grid, settings: Settings) -> Matrix:
    """Matrix of ``f -> b . grad f + eta/2 S : grad grad f`` for the equation that is asked for."""
    drift, covariance = _coefficients(problem, grid.points, settings)
    dimensions = range(problem.dimensions)
    half = settings.learning_rate / 2
    if settings.equation == "second":
        ahead, behind = (
            _coefficients(problem, grid.points + step * drift, settings)[0]
            for step in (_NUDGE, -_NUDGE)
        )
        drift = drift - half * (ahead - behind) / (2 * _NUDGE)
    terms = [(drift[:, i], grid.derivative(i)) for i in dimensions]
    pairs = itertools.product(dimensions, repeat=2)
    terms += [(half * covariance[:, i, j], grid.derivative(i, j)) for i, j in pairs]
    return sum(sparse.diags_array(factor) @ matrix for factor, matrix in terms)


def observables(points: Array) -> Array:
    """The functions f at points, shape (n, functions)."""
    columns = points.T
    pairs = [x * y for i, x in enumerate(columns) for y in columns[i:]]
    return np.stack([*columns, *pairs, np.cos(points.sum(axis=1))], axis=1)


def _flow(problem: Problem, settings: Settings) -> Array:
    """Where the flow is at T, shape (1, d). Its generator would need a finer grid: without noise
    nothing smooths what a clipped law bends."""

    def drift(_: float, point: Array) -> Array:
        velocity: Array = _coefficients(problem, point[None], settings)[0][0]
        return velocity

    options = {"method": "DOP853", "rtol": 1e-10, "atol": 1e-12}
    end: Array = solve_ivp(drift, (0, settings.time), problem.start, **options).y[:, -1]
    return end[None]


def _coefficients(problem: Problem, points: Array, settings: Settings) -> tuple[Array, Array]:
    """Drift b, shape (n, d), and covariance S per unit of eta, shape (n, d, d)."""
    if settings.equation == "matched":
        weights, updates = problem.updates(points, settings.coupling)
        mean = np.einsum("m,mni->ni", weights, updates)
        second = np.einsum("m,mni,mnj->nij", weights, updates, updates)
        return -mean, second - mean[:, :, None] * mean[:, None, :]
    rho = np.ones(len(points)) if settings.equation == "plain" else problem.multiplier(points)
    root = rho[:, None, None] * problem.noise_root(points)
    return -rho[:, None] * problem.gradient(points), root @ root.transpose(0, 2, 1)
