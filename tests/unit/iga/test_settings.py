"""IGA's settings: what is allowed, what excludes what, what is neutral."""

from __future__ import annotations

import math
from itertools import product
from typing import Any

import pytest

from poise.iga.mask import ConflictMask
from poise.iga.settings import CHOICES, IGA

WRONG: list[tuple[dict[str, Any], str]] = [
    ({"space": "row"}, "space: expected one of weight, factor, direction, found 'row'"),
    ({"projection": "svd"}, "projection: expected one of randomized, exact, none, found 'svd'"),
    ({"update": "sgd"}, "update: expected one of chain, retraction, found 'sgd'"),
    ({"applied_to": "weights"}, "applied_to: expected one of gradient, update, found"),
    ({"scale": "max"}, "scale: expected one of none, layer, snr, found 'max'"),
    *(({"tau": tau}, f"tau: expected a number of 0 or more, found {tau!r}") for tau in (-0.1, "x")),
    *(({"tau": tau}, "tau: expected a number of 0") for tau in (math.nan, math.inf, None, True)),
    *(({"eps": x}, f"eps: expected a finite number above 0, found {x}") for x in (0.0, math.inf)),
    *(({"rank": x}, f"rank: expected a whole number of 1 or more, found {x}") for x in (0, 2.5)),
    ({"rank": True}, "rank: expected a whole .* found True"),
    ({"oversampling": -1}, "oversampling: expected a whole number of 0 or more, found -1"),
    ({"tau": 3.0}, "tau=3.0 shapes a mask"),
    ({"projection": "none"}, "projection='none' shapes a mask"),
    ({"update": "retraction", "space": "factor"}, "expected space 'weight' and a projection"),
    (
        {"update": "retraction", "projection": "none", "space": "weight"},
        "found 'weight' and 'none'",
    ),
    ({"applied_to": "update", "space": "weight"}, "expected space 'factor' or 'direction'"),
]


@pytest.mark.parametrize(("settings", "message"), WRONG)
def test_settings_outside_their_range_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        IGA(**settings)


def test_what_is_allowed_reaches_the_mask() -> None:
    method = IGA(space="weight", tau=0, oversampling=0, rank=1, scale="layer", eps=0.5)
    assert method.mask == ConflictMask("layer", 0.5)
    for projection in ("randomized", "exact"):
        IGA(space="weight", update="retraction", projection=projection)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("space", "projection", "tau"),
    [*product(("weight", "factor"), CHOICES["projection"], (0.0, 0.5))],
)
def test_it_is_neutral_without_mask_and_without_projection(
    space: Any, projection: Any, tau: float
) -> None:
    method = IGA(space=space, projection=projection, tau=tau)
    has_none = space == "factor" or projection == "none"
    assert method.is_neutral == (tau == 0 and has_none)
    assert not IGA().is_neutral  # of the directions
