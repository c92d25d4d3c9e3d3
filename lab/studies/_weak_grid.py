"""Functions on a box as values on a grid: derivatives and interpolation as matrices."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from numpy.polynomial import chebyshev
from numpy.typing import NDArray
from scipy import sparse

Array = NDArray[np.float64]
Matrix = Any  # scipy.sparse.csr_array, which has no types


class Line(Protocol):
    """Points on [-radius, radius], and how values between them are found."""

    radius: float
    nodes: Array

    def values_at(self, points: Array, order: int = 0) -> Matrix:
        """Matrix from values on the nodes to those of a derivative at points, shape (n, N)."""
        ...


class Chebyshev:
    """One polynomial through Chebyshev points: for smooth functions exact with a few of them.

    Reference: Trefethen, Spectral Methods in MATLAB, SIAM 2000.
    """

    def __init__(self, resolution: int, radius: float) -> None:
        self.radius = radius
        self.nodes = radius * np.cos(np.pi * (np.arange(resolution) + 0.5) / resolution)
        self._inverse = np.linalg.inv(chebyshev.chebvander(self.nodes / radius, resolution - 1))

    def values_at(self, points: Array, order: int = 0) -> Matrix:
        """See `Line`."""
        count = len(self.nodes)
        coefficients = chebyshev.chebder(np.eye(count), order) / self.radius**order
        at_points = chebyshev.chebvander(points / self.radius, count - 1 - order)
        return sparse.csr_array(at_points @ coefficients @ self._inverse)


class Lattice:
    """Equal distances, polynomials of degree 4 through the nearest five: a kink stays local."""

    _STENCIL = 5

    def __init__(self, resolution: int, radius: float) -> None:
        self.radius = radius
        self.nodes = np.linspace(-radius, radius, resolution)
        places = np.arange(self._STENCIL, dtype=np.float64)
        self._inverse = np.linalg.inv(np.vander(places, increasing=True))

    def values_at(self, points: Array, order: int = 0) -> Matrix:
        """See `Line`."""
        count, powers = len(self.nodes), np.arange(self._STENCIL)
        step = self.nodes[1] - self.nodes[0]
        places = (points + self.radius) / step
        first = np.rint(places).astype(int) - self._STENCIL // 2
        first = np.clip(first, 0, count - self._STENCIL)
        factors = np.prod([np.maximum(powers - k, 0) for k in range(order)], axis=0)
        monomials = (places - first)[:, None] ** np.maximum(powers - order, 0)
        weights = (factors * monomials) @ self._inverse / step**order
        columns = first[:, None] + powers
        starts = np.arange(len(points) + 1) * self._STENCIL
        entries = (weights.ravel(), columns.ravel(), starts)
        return sparse.csr_array(entries, shape=(len(points), count))


class Grid:
    """The product of a line with itself: N^d points.

    Args:
        line: Along each dimension.
        dimensions: d.
    """

    def __init__(self, line: Line, dimensions: int) -> None:
        self._line = line
        self._along = [line.values_at(line.nodes, order) for order in range(3)]
        axes = np.meshgrid(*[line.nodes] * dimensions, indexing="ij")
        self.points = np.stack([axis.ravel() for axis in axes], axis=1)

    def derivative(self, *dimensions: int) -> Matrix:
        """Matrix of a partial derivative, shape (N^d, N^d): (0,) is d/dx_0, (0, 0) its second."""
        matrix = sparse.eye_array(1)
        for dimension in range(self.points.shape[1]):
            matrix = sparse.kron(matrix, self._along[dimensions.count(dimension)], format="csr")
        return matrix

    def values_at(self, points: Array) -> Matrix:
        """Matrix from values on the grid to those at points of the box, shape (n, N^d).

        Raises:
            ValueError: a point lies outside.
        """
        if np.abs(points).max() > self._line.radius:
            raise ValueError(
                f"grid: expected points within {self._line.radius}, found "
                f"{np.abs(points).max():.3g}; take less noise or a smaller learning rate"
            )
        first, *others = (self._line.values_at(column) for column in points.T)
        for other in others:
            product = first.toarray()[:, :, None] * other.toarray()[:, None, :]
            first = sparse.csr_array(product.reshape(len(points), -1))
        return first
