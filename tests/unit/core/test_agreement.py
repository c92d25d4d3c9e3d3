"""Agreement: the mean cosine between gradients of domains."""

from __future__ import annotations

import pytest
import torch

from poise.core.conflict import agreement, domain_moments


def _agreement(gradients: torch.Tensor) -> float:
    weights = torch.full((len(gradients),), 1 / len(gradients), dtype=torch.float64)
    moments = domain_moments(gradients, weights)
    return float(agreement(moments.mean.square().sum(), moments.variance.sum(), weights))


def test_agreement_is_the_mean_cosine_of_all_pairs_where_norms_are_alike() -> None:
    vectors = torch.nn.functional.normalize(torch.randn(4, 7, dtype=torch.float64), dim=1)
    pairs = [(i, j) for i in range(4) for j in range(i)]
    cosines = [torch.cosine_similarity(vectors[i], vectors[j], 0) for i, j in pairs]
    assert _agreement(3 * vectors) == pytest.approx(float(torch.stack(cosines).mean()))


def test_agreement_weighs_pairs_by_their_norms() -> None:
    vectors = torch.randn(4, 7, dtype=torch.float64)
    products = [vectors[i] @ vectors[j] for i in range(4) for j in range(i)]
    expected = torch.stack(products).mean() / vectors.square().sum(1).mean()
    assert _agreement(vectors) == pytest.approx(float(expected))


@pytest.mark.parametrize(
    ("vectors", "expected"),
    [
        ([[1.0, 2.0]], 1.0),
        ([[1.0, 2.0], [1.0, 2.0]], 1.0),
        ([[1.0, 2.0], [-1.0, -2.0]], -1.0),
        ([[1.0, 0.0], [0.0, 3.0]], 0.0),
        ([[1.0, 0.0], [0.0, 0.0]], 0.0),
        ([[0.0], [0.0]], 1.0),
    ],
)
def test_agreement_of_few_domains(vectors: list[list[float]], expected: float) -> None:
    assert _agreement(torch.tensor(vectors)) == pytest.approx(expected, abs=1e-6)
