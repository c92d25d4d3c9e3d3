"""IGA's settings: what is allowed, what excludes what, what is neutral."""

from __future__ import annotations

import math
from typing import Any

import pytest

from poise.iga.invariant import IGA, PROJECTIONS, SPACES
from poise.iga.mask import SCALES, ConflictMask


def test_the_default_is_the_direction_space() -> None:
    assert IGA().space == "direction" and not IGA().is_neutral


def test_the_papers_space_has_a_projection_and_a_mask() -> None:
    method = IGA(space="weight")
    assert (method.space, method.projection, method.update) == ("weight", "randomized", "chain")
    assert method.tau > 0
    assert not method.is_neutral


@pytest.mark.parametrize("scale", SCALES)
def test_the_mask_has_the_scale_and_the_eps(scale: Any) -> None:
    assert IGA(space="weight", scale=scale, eps=0.5).mask == ConflictMask(scale, 0.5)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"space": "row"}, "space: expected one of weight, factor, direction, found 'row'"),
        ({"projection": "svd"}, "projection: expected one of randomized, exact, none, found 'svd'"),
        ({"update": "sgd"}, "update: expected one of chain, retraction, found 'sgd'"),
        ({"scale": "max"}, "scale: expected one of none, layer, snr, found 'max'"),
        ({"tau": -0.1}, "tau: expected a number of 0 or more, found -0.1"),
        ({"tau": math.nan}, "tau: expected a number of 0 or more, found nan"),
        ({"tau": math.inf}, "tau: expected a number of 0 or more, found inf"),
        ({"eps": 0.0}, "eps: expected a finite number above 0, found 0.0"),
        ({"eps": math.inf}, "eps: expected a finite number above 0, found inf"),
        ({"rank": 0, "space": "weight"}, "rank: expected a whole number of 1 or more, found 0"),
        ({"tau": 3.0}, "tau=3.0 shapes a mask"),
        ({"projection": "none"}, "projection='none' shapes a mask"),
        ({"oversampling": -1}, "oversampling: expected a whole number of 0 or more, found -1"),
        ({"update": "retraction", "space": "factor"}, "expected space 'weight' and a projection"),
        (
            {"update": "retraction", "projection": "none", "space": "weight"},
            "found 'weight' and 'none'",
        ),
        ({"applied_to": "weights"}, "applied_to: expected one of gradient, update, found"),
        ({"applied_to": "update", "space": "weight"}, "expected space 'factor' or 'direction'"),
    ],
)
def test_settings_outside_their_range_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        IGA(**settings)


def test_the_edges_of_the_ranges_are_allowed() -> None:
    IGA(space="weight", tau=0, oversampling=0, rank=1)
    for projection in ("randomized", "exact"):
        IGA(space="weight", update="retraction", projection=projection)  # type: ignore[arg-type]


@pytest.mark.parametrize("space", [space for space in SPACES if space != "direction"])
@pytest.mark.parametrize("projection", PROJECTIONS)
@pytest.mark.parametrize("tau", [0.0, 0.5])
def test_it_is_neutral_without_mask_and_without_projection(
    space: Any, projection: Any, tau: float
) -> None:
    method = IGA(space=space, projection=projection, tau=tau)
    has_none = space == "factor" or (space == "weight" and projection == "none")
    assert method.is_neutral == (tau == 0 and has_none)
