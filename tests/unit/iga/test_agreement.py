"""Agreement: the mean cosine between gradients of domains, weighted by their norms."""

from __future__ import annotations

from itertools import permutations

import pytest
import torch
from torch import Tensor

from poise.iga.mask import agreement, domain_moments


def _agreement(gradients: Tensor, weights: Tensor | None = None) -> float:
    number = len(gradients)
    weights = torch.full((number,), 1 / number, dtype=torch.float64) if weights is None else weights
    energies = gradients.new_zeros(number)
    mean = domain_moments(gradients, weights, energies=energies).mean
    return float(agreement(mean.square().sum(), energies, weights))


def test_agreement_weighs_pairs_by_their_norms_and_their_domains_weights() -> None:
    vectors = torch.randn(4, 7, dtype=torch.float64)
    weights = torch.tensor([0.1, 0.4, 0.2, 0.3], dtype=torch.float64)
    share = weights * vectors.norm(dim=1)
    pairs = list(permutations(range(4), 2))
    cosines = [torch.cosine_similarity(vectors[i], vectors[j], 0) for i, j in pairs]
    expected = sum(share[i] * share[j] * c for (i, j), c in zip(pairs, cosines, strict=True))
    expected = float(expected / sum(share[i] * share[j] for i, j in pairs))
    assert _agreement(vectors, weights) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("vectors", "expected"),
    [
        ([[1.0, 2.0]], 1.0),
        ([[1.0, 2.0], [1.0, 2.0]], 1.0),
        ([[1e-3, 2e-3], [1.0, 2.0], [50.0, 100.0]], 1.0),
        ([[1.0, 2.0], [-1.0, -2.0]], -1.0),
        ([[1.0, 2.0], [-5.0, -10.0]], -1.0),
        ([[1.0, 0.0], [0.0, 3.0]], 0.0),
        ([[1.0, 0.0], [0.0, 3.0], [0.0, 0.0]], 0.0),
        ([[1.0, 0.0], [0.0, 0.0]], 1.0),
        ([[0.0], [0.0]], 1.0),
    ],
)
def test_agreement_of_few_domains(vectors: list[list[float]], expected: float) -> None:
    assert _agreement(torch.tensor(vectors)) == pytest.approx(expected, abs=1e-6)
