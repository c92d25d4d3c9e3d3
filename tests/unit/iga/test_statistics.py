from __future__ import annotations

import json

import pytest
import torch

from poise.iga.adapters import RunningMeans


def test_means_are_of_what_came_since_they_were_last_taken() -> None:
    means = RunningMeans()
    for step in range(3):
        means.add("one", torch.tensor(float(step), requires_grad=True))
    means.add("two", torch.tensor([1.0, 3.0]))
    assert means.take() == {"one": 1.0, "two": [1.0, 3.0]}
    assert means.take() == {}


def test_they_go_on_exactly_from_a_saved_state() -> None:
    values = torch.rand(2, 5, generator=torch.Generator().manual_seed(0))
    whole, first, second = RunningMeans(), RunningMeans(), RunningMeans()
    for means, parts in ((whole, values), (first, values[:1])):
        for part in parts:
            means.add("x", part)
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    second.add("x", values[1])
    assert second.take()["x"] == pytest.approx(whole.take()["x"], rel=1e-7)
