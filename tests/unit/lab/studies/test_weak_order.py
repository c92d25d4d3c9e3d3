"""The weak error's parts against exact values, and orders that are known."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from scipy.integrate import solve_ivp
from scipy.linalg import expm
from scipy.sparse.linalg import expm_multiply, matrix_power

from lab.studies import weak_order
from lab.studies._weak_grid import Array, Chebyshev, Grid, Lattice, Line
from lab.studies._weak_problem import FAMILIES, Problem
from lab.studies.weak_order import Settings, generator, observables, transition
from poise.pgpo.viscosity import Viscosity

BASE: Mapping[str, Any] = {
    "method": "m", "seed": 4, "problem": "rippled 1d", "learning_rate": 0.1,
    "equation": "modulated",
}  # fmt: skip
LINES = [Chebyshev(12, 3.0), Lattice(40, 3.0)]


def problem_of(settings: Settings) -> Problem:
    return Problem(settings.problem, settings.seed, settings.law)


@pytest.mark.parametrize("line", LINES)
def test_polynomials_of_degree_four_are_exact_with_their_derivatives(line: Line) -> None:
    coefficients = np.array([0.3, -1.0, 0.5, 0.2, -0.1])
    points = np.array([-3.0, -2.9, -0.01, 0.4, 2.99, 3.0])
    polynomial = np.polynomial.Polynomial(coefficients)
    for order in range(3):
        found = line.values_at(points, order) @ polynomial(line.nodes)
        np.testing.assert_allclose(found, polynomial.deriv(order)(points), atol=1e-9)


def test_a_product_grid_interpolates_and_differentiates_in_each_direction() -> None:
    grid = Grid(Chebyshev(6, 2.0), 2)
    x, y = grid.points.T
    values = x**3 * y**2
    points = np.array([[0.3, -1.7], [2.0, 0.1]])
    exact = {
        (): points[:, 0] ** 3 * points[:, 1] ** 2,
        (0,): 3 * points[:, 0] ** 2 * points[:, 1] ** 2,
        (1, 0): 6 * points[:, 0] ** 2 * points[:, 1],
        (1, 1): 2 * points[:, 0] ** 3,
    }
    for dimensions, expected in exact.items():
        found = grid.values_at(points) @ grid.derivative(*dimensions) @ values
        np.testing.assert_allclose(found, expected, atol=1e-10)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_gradient_is_that_of_the_loss(family: str) -> None:
    problem = Problem(family, 5, Viscosity())

    def loss(point: Array) -> float:
        waves = np.sin(2 * point + problem.phases).sum()
        return float(point @ problem.hessian @ point / 2 + problem.family.ripple * waves)

    point = problem.start
    steps = 1e-5 * np.eye(problem.dimensions)
    numeric = [(loss(point + step) - loss(point - step)) / 2e-5 for step in steps]
    np.testing.assert_allclose(problem.gradient(point[None])[0], numeric, rtol=1e-7)


@pytest.mark.parametrize("family", FAMILIES)
def test_updates_have_the_moments_that_the_modulated_equation_has(family: str) -> None:
    problem = Problem(family, 5, Viscosity())
    points = np.linspace(-2, 2, 6 * problem.dimensions).reshape(-1, problem.dimensions)
    weights, updates = problem.updates(points, coupling=0.0)
    rho, root = problem.multiplier(points), problem.noise_root(points)
    mean = np.einsum("m,mni->ni", weights, updates)
    np.testing.assert_allclose(mean, rho[:, None] * problem.gradient(points), atol=1e-14)
    noise = updates - mean
    covariance = np.einsum("m,mni,mnj->nij", weights, noise, noise)
    expected = (rho**2)[:, None, None] * (root @ root.transpose(0, 2, 1))
    np.testing.assert_allclose(covariance, expected, atol=1e-14)
    assert weights.sum() == pytest.approx(1)


def test_the_chain_is_that_of_all_its_paths() -> None:
    settings = Settings(**BASE | {"time": 0.5, "coupling": 0.1})
    problem = problem_of(settings)
    grid = Grid(Lattice(300, 3.0), 1)
    step = transition(problem, grid, settings)
    found = grid.values_at(problem.start[None]) @ matrix_power(step, settings.steps)
    points, weights = problem.start[None], np.ones(1)
    for _ in range(settings.steps):  # 3^5 paths
        probabilities, updates = problem.updates(points, settings.coupling)
        points = (points - settings.learning_rate * updates).reshape(-1, 1)
        weights = np.outer(probabilities, weights).ravel()
    assert len(points) == 3**5
    expected = weights @ observables(points)
    np.testing.assert_allclose((found @ observables(grid.points))[0], expected, atol=1e-7)


def test_with_a_constant_multiplier_on_a_bowl_moments_are_those_of_linear_recursions() -> None:
    settings = Settings(**BASE | {"problem": "quadratic 2d", "sensitivity": 0.0})
    problem = problem_of(settings)
    eta, hessian = settings.learning_rate, problem.hessian
    sigma = problem.root @ problem.root.T
    grid = Grid(Chebyshev(14, 3.0), 2)
    start = grid.values_at(problem.start[None])
    moments = observables(grid.points)[:, :5]  # x, y, x^2, x y, y^2

    mean, second = problem.start, np.outer(problem.start, problem.start)
    contraction = np.eye(2) - eta * hessian
    for _ in range(settings.steps):
        mean = contraction @ mean
        second = contraction @ second @ contraction.T + eta**2 * sigma
    step = transition(problem, grid, settings)
    chain = (start @ matrix_power(step, settings.steps) @ moments)[0]
    expected = [*mean, second[0, 0], second[0, 1], second[1, 1]]
    np.testing.assert_allclose(chain, expected, atol=1e-10)

    def rates(_: float, y: Array) -> Array:
        m = y.reshape(2, 2)
        return np.asarray(-hessian @ m - m @ hessian + eta * sigma).ravel()

    mean = expm(-hessian * settings.time) @ problem.start
    first = np.outer(problem.start, problem.start).ravel()
    flow = solve_ivp(rates, (0, settings.time), first, method="DOP853", rtol=1e-11, atol=1e-12)
    expected = [*mean, *flow.y[[0, 1, 3], -1]]
    carried = expm_multiply(settings.time * generator(problem, grid, settings), moments)
    equation = (start @ carried)[0]
    np.testing.assert_allclose(equation, expected, atol=1e-8)


@pytest.mark.parametrize(
    ("equation", "coupling", "order"),
    [
        ("modulated", 0.0, 1),
        ("flow", 0.0, 1),
        ("second", 0.0, 2),
        ("matched", 0.1, 1),
        ("plain", 0.0, 0),
        ("modulated", 0.1, 0),
    ],
)
@pytest.mark.parametrize(("problem", "resolution"), [("quadratic 2d", 14), ("rippled 1d", 150)])
def test_orders_are_what_they_are_known_to_be(
    problem: str, resolution: int, equation: str, coupling: float, order: int
) -> None:
    errors = []
    for rate in (0.02, 0.01):
        changes = {"problem": problem, "learning_rate": rate, "equation": equation}
        settings = Settings(**BASE | changes | {"coupling": coupling})
        errors.append(weak_order.weak_error(problem_of(settings), settings, resolution))
    # Where the drift is wrong the error also changes a little with eta.
    slack = 0.2 if order == 0 else 0.06
    assert np.log2(errors[0] / errors[1]) == pytest.approx(order, abs=slack)


def test_a_run_tells_the_error_and_what_the_grid_adds() -> None:
    figures = weak_order.run(BASE)
    # The exponential estimates norms at random: the last digits differ from run to run.
    assert weak_order.run(BASE) == pytest.approx(figures, rel=1e-9, abs=1e-10)
    settings = Settings(**BASE)
    again = weak_order.weak_error(problem_of(settings), settings, 600)
    assert figures["error"] == pytest.approx(again, rel=1e-9)
    assert 0 <= figures["grid"] < 1e-3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"equation": "third"}, "equation: expected one of modulated, flow, plain, second"),
        ({"problem": "cubic"}, "problem: expected one of quadratic 2d, rippled 1d, clipped 1d"),
        ({"learning_rate": 0.3}, r"learning_rate: expected a whole fraction of 2\.0, found 0\.3"),
        ({"learning_rat": 0.1}, "settings: .*'learning_rat'"),
        ({"rho_min": 1.5}, "rho_min must be in"),
    ],
)
def test_settings_that_it_does_not_take_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        weak_order.check(BASE | change)
