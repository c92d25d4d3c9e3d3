"""One signal per optimizer step, used once, and nothing of the optimizer left changed."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
import torch
import torch.distributed as dist
from accelerate import Accelerator
from torch import nn, optim

from poise import StepScale
from poise.pgpo.distance import DistanceControl
from poise.pgpo.signal import SignalSum, information_sum
from poise.pgpo.step_scale import StepRecord
from poise.pgpo.viscosity import Viscosity

from .optimizer_steps import (
    LAW,
    assert_close,
    parameters,
    plain_change,
    scaled_sgd,
    signal,
    take_step,
    times,
)

# Observing


def test_a_step_without_a_distilled_sequence_is_the_plain_step() -> None:
    params, optimizer, scale = scaled_sgd()
    scale.observe(information_sum(torch.ones(2, 3), torch.zeros(2, 3)))
    change = take_step(optimizer, params)
    assert all(map(torch.equal, change, plain_change()))
    assert scale.last == StepRecord(signal=None, multiplier=1.0)
    assert scale.state.steps == 0  # the reference has seen nothing


def test_an_observation_serves_one_step() -> None:
    params, optimizer, scale = scaled_sgd()
    scale.observe(signal(3.0))
    assert_close(take_step(optimizer, params), times(3.0, plain_change()))
    assert scale.last.multiplier == pytest.approx(3.0)
    assert_close(take_step(optimizer, params), plain_change())
    assert scale.last == StepRecord(signal=None, multiplier=1.0)


def test_eight_micro_batches_of_one_are_one_of_eight() -> None:
    generator = torch.Generator().manual_seed(0)
    information = torch.randn(8, 13, dtype=torch.float64, generator=generator)
    mask = torch.rand(8, 13, generator=generator) < 0.7
    mask[5] = False
    results = []
    for size in (8, 1):
        params, optimizer, scale = scaled_sgd()
        for i in range(0, 8, size):
            scale.observe(information_sum(information[i : i + size], mask[i : i + size]))
        results.append((take_step(optimizer, params), scale.last))
    (whole, whole_record), (parts, parts_record) = results
    assert parts_record.signal == pytest.approx(whole_record.signal, rel=0, abs=1e-12)
    assert whole_record.multiplier != 1.0
    assert_close(parts, whole)


def test_what_is_discarded_does_not_count() -> None:
    params, optimizer, scale = scaled_sgd()
    scale.observe(signal(50.0))
    scale.discard()
    scale.observe(signal(2.0))
    assert_close(take_step(optimizer, params), times(2.0, plain_change()))


def test_an_observation_keeps_no_graph_alive() -> None:
    *_, scale = scaled_sgd()
    entropy = torch.ones(2, 3, requires_grad=True) * torch.ones(2, 3)
    scale.observe(information_sum(entropy, torch.ones(2, 3)))
    assert scale._pending is not None and not scale._pending.total.requires_grad


def test_a_signal_that_is_not_finite_scales_nothing_and_moves_no_reference() -> None:
    params, optimizer, scale = scaled_sgd()
    scale.observe(SignalSum(torch.tensor(math.nan), torch.tensor(1.0)))
    state = scale.state
    assert_close(take_step(optimizer, params), plain_change())
    assert scale.last.multiplier == 1.0
    assert scale.state == state


@pytest.mark.parametrize("observes", [True, False])
def test_the_signal_is_a_mean_over_the_sequences_of_all_ranks(
    observes: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where this rank has none. In whole runs: `tests/invariants/test_two_ranks.py`."""
    monkeypatch.setattr(dist, "is_initialized", lambda: True)
    monkeypatch.setattr(dist, "get_world_size", lambda: 2)
    monkeypatch.setattr(dist, "all_reduce", lambda sums: sums.add_(torch.tensor([0.6, 2.0])))
    params, optimizer, scale = scaled_sgd()
    if observes:
        scale.observe(SignalSum(torch.tensor(0.3), torch.tensor(1.0)))
    take_step(optimizer, params)
    assert scale.last.signal == pytest.approx(0.3)
    assert scale.last.multiplier == pytest.approx(math.exp(0.3))


# State and arguments


def test_the_state_survives_json() -> None:
    law = Viscosity(rho_min=0.1, reference="running", reference_decay=0.2)
    totals = (0.5, 0.1, 0.3, 0.02)
    multipliers: dict[bool, list[float]] = {}
    for is_resumed in (False, True):
        params = parameters()
        optimizer = optim.SGD(params, lr=0.1)
        scale = StepScale(optimizer, law)
        multipliers[is_resumed] = []
        for step, total in enumerate(totals):
            if is_resumed and step == 2:
                state = json.loads(json.dumps(scale.state_dict()))
                scale.close()
                scale = StepScale(optimizer, law)
                scale.load_state_dict(state)
            scale.observe(SignalSum(torch.tensor(total), torch.tensor(1.0)))
            take_step(optimizer, params, step)
            multipliers[is_resumed].append(scale.last.multiplier)
    assert multipliers[True] == multipliers[False]
    assert len(set(multipliers[True])) > 2


@pytest.mark.parametrize(
    ("state", "found"),
    [
        ({"a": 1}, "state: expected reference, steps, found a;"),
        ({"reference": None}, "state: expected reference, steps, found reference;"),
        ({}, "state: expected reference, steps, found nothing;"),
        (None, "state: expected reference, steps, found NoneType;"),
        (
            {"reference": None, "steps": 0, "distance": {"scale": 0.1}},
            r"state\['distance'\]: expected scale, moved, asked, found scale;",
        ),
    ],
)
@pytest.mark.parametrize("distance", [None, DistanceControl()])
def test_a_state_that_is_not_whole_is_refused_and_changes_nothing(
    state: Any, found: str, distance: DistanceControl | None
) -> None:
    scale = StepScale(optim.SGD(parameters(), lr=0.1), LAW, distance=distance)
    before = scale.state_dict()
    with pytest.raises(ValueError, match=rf"^{found} give what state_dict\(\) returned, whole$"):
        scale.load_state_dict(state)
    assert scale.state_dict() == before


@pytest.mark.parametrize("wrong", ["adamw", None, nn.Linear(1, 1)])
def test_what_is_not_an_optimizer_is_refused(wrong: Any) -> None:
    with pytest.raises(TypeError, match=r"needs a torch.optim.Optimizer, got \w+"):
        StepScale(wrong, LAW)


def test_a_wrapped_optimizer_is_refused_with_a_way_out() -> None:
    wrapped = Accelerator(cpu=True).prepare(optim.SGD(parameters(), lr=0.1))
    with pytest.raises(TypeError, match="of a wrapper, pass the optimizer inside"):
        StepScale(wrapped, LAW)


def test_one_optimizer_has_one_scale() -> None:
    params, optimizer, scale = scaled_sgd()
    with pytest.raises(ValueError, match=r"this SGD has a StepScale already.*step_scale.close\(\)"):
        StepScale(optimizer, LAW)
    scale.observe(signal(3.0))
    assert_close(take_step(optimizer, params), times(3.0, plain_change()))
    scale.close()
    StepScale(optimizer, LAW).observe(signal(2.0))
    assert_close(take_step(optimizer, params), times(2.0, plain_change()))


def test_a_scale_without_a_law_is_refused() -> None:
    optimizer = optim.SGD(parameters(), lr=0.1)
    with pytest.raises(ValueError, match="needs a law to scale steps by, found none"):
        StepScale(optimizer)
    with pytest.raises(ValueError, match="policy= measures for distance control, found none"):
        StepScale(optimizer, LAW, policy=lambda: None)
