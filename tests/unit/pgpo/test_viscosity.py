"""The viscosity law: its formula, its bounds, and what its references remember."""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from poise.pgpo.viscosity import REFERENCES, Viscosity, ViscosityState

signals = st.floats(allow_nan=False, allow_infinity=False)
ordinary = st.floats(-5.0, 5.0)
laws = st.builds(
    Viscosity,
    sensitivity=st.floats(0, 100) | st.just(1e300),
    rho_max=st.floats(1, 50),
    rho_min=st.floats(1e-3, 1),
    reference=st.sampled_from(REFERENCES),
    reference_steps=st.integers(1, 5),
    reference_decay=st.floats(0, 1),
    prior_reference=st.none() | st.floats(1e-3, 10),
)
quick = settings(deadline=None, max_examples=50)


def _run(law: Viscosity, values: list[float]) -> tuple[list[float], ViscosityState]:
    state, multipliers = law.init(), []
    for value in values:
        rho, state = law.step(value, state)
        multipliers.append(rho)
    return multipliers, state


# The formula


@pytest.mark.parametrize(
    ("signal", "expected"),
    [
        (0.0, 1.0),
        (0.25, math.exp(0.5)),
        (-0.25, math.exp(-0.5)),
        (10.0, 3.0),  # exp(20), capped
        (-10.0, 0.1),  # exp(-20), held up
    ],
)
def test_without_a_reference_it_is_equation_nine(signal: float, expected: float) -> None:
    law = Viscosity(sensitivity=2.0, rho_max=3.0, rho_min=0.1)
    assert _run(law, [signal])[0] == [pytest.approx(expected, rel=1e-15)]


def test_the_papers_lower_bound_is_the_default() -> None:
    assert _run(Viscosity(), [-0.5, -1e9])[0] == [1.0, 1.0]


def test_with_a_reference_the_signal_is_measured_against_it() -> None:
    law = Viscosity(sensitivity=3.0, rho_min=0.02, reference="running", prior_reference=0.04)
    (rho,), _ = _run(law, [0.02])
    reference = 0.99 * 0.04 + 0.01 * 0.02
    assert rho == pytest.approx(math.exp(3.0 * (0.02 / reference - 1)), rel=1e-14)


def test_the_initial_reference_is_the_mean_of_the_first_signals_then_fixed() -> None:
    law = Viscosity(sensitivity=1.0, rho_min=0.1, reference="initial", reference_steps=3)
    state, references = law.init(), []
    for signal in (0.1, 0.4, 0.1, 5.0, -5.0):
        _, state = law.step(signal, state)
        references.append(state.reference)
    assert references == pytest.approx([0.1, 0.25, 0.2, 0.2, 0.2], rel=1e-14)
    assert state.steps == 5


def test_a_multiplier_while_the_mean_is_taken_uses_the_mean_so_far() -> None:
    law = Viscosity(sensitivity=1.0, rho_min=0.1, reference="initial", reference_steps=10)
    rhos, _ = _run(law, [0.2, 0.1])
    assert rhos == pytest.approx([1.0, math.exp(0.1 / 0.15 - 1)], rel=1e-14)


def test_a_prior_reference_fixes_the_initial_one_from_the_first_step() -> None:
    law = Viscosity(rho_min=0.1, reference="initial", prior_reference=0.05, reference_steps=5)
    rhos, state = _run(law, [0.025, 9.0])
    assert rhos[0] == pytest.approx(math.exp(-0.5), rel=1e-14)
    assert state.reference == 0.05


def test_the_running_reference_rises_at_once_and_forgets_slowly() -> None:
    law = Viscosity(reference="running", reference_decay=0.25)
    state, references = law.init(), []
    for signal in (0.1, 0.4, 0.0, 0.0):
        _, state = law.step(signal, state)
        references.append(state.reference)
    assert references == pytest.approx([0.1, 0.4, 0.3, 0.225], rel=1e-14)


@pytest.mark.parametrize("reference", ["initial", "running"])
@pytest.mark.parametrize("first", [0.0, -3.0])
def test_a_reference_without_a_ratio_is_floored(reference: Any, first: float) -> None:
    law = Viscosity(rho_min=0.5, rho_max=4.0, reference=reference)
    assert _run(law, [first])[0] == [0.5]


# Properties


@quick
@given(law=laws, values=st.lists(signals, min_size=1, max_size=8))
@example(law=Viscosity(rho_min=0.1), values=[1e300, -1e300])
@example(law=Viscosity(rho_min=0.1, reference="initial"), values=[-1e308, 1.7e308, 1.0, -1.0])
@example(law=Viscosity(rho_min=0.1, reference="running"), values=[-1e308, 1.7e308, 1.0, -1e308])
def test_the_multiplier_stays_within_its_bounds(law: Viscosity, values: list[float]) -> None:
    rhos, state = _run(law, values)
    assert all(law.rho_min <= rho <= law.rho_max for rho in rhos)
    assert state.reference is None or math.isfinite(state.reference)


@quick
@given(
    law=laws,
    before=st.lists(st.floats(1e-3, 5.0), max_size=6),
    pair=st.tuples(ordinary, ordinary).map(sorted),
)
def test_more_information_never_makes_a_smaller_step(
    law: Viscosity, before: list[float], pair: list[float]
) -> None:
    _, state = _run(law, before)
    low, high = (law.step(signal, state)[0] for signal in pair)
    assert low <= high * (1 + 1e-12)  # the reference moves with the signal, and rounds


@quick
@given(values=st.lists(signals, min_size=1, max_size=6), law=laws)
def test_sensitivity_zero_is_exactly_one(values: list[float], law: Viscosity) -> None:
    off = Viscosity(
        sensitivity=0, rho_max=law.rho_max, rho_min=law.rho_min, reference=law.reference
    )
    assert set(_run(off, values)[0]) == {1.0}


@quick
@given(law=laws, values=st.lists(ordinary, min_size=1, max_size=8), cut=st.integers(0, 8))
def test_the_state_survives_json(law: Viscosity, values: list[float], cut: int) -> None:
    whole, end = _run(law, values)
    _, state = _run(law, values[:cut])
    state = ViscosityState(**json.loads(json.dumps(asdict(state))))
    rest = []
    for value in values[cut:]:
        rho, state = law.step(value, state)
        rest.append(rho)
    assert rest == whole[cut:]
    assert state == end


# Errors


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"sensitivity": -0.1}, "sensitivity must be at least 0, got -0.1"),
        ({"sensitivity": math.nan}, "sensitivity must be at least 0, got nan"),
        ({"sensitivity": "high"}, "sensitivity must be at least 0, got 'high'"),
        ({"sensitivity": True}, "sensitivity must be at least 0, got True"),
        ({"rho_max": None}, "rho_max must be at least 1, got None"),
        ({"rho_min": 0.0}, r"rho_min must be in \(0, 1\], got 0.0"),
        ({"rho_min": 1.5}, r"rho_min must be in \(0, 1\], got 1.5"),
        ({"rho_max": 0.5, "rho_min": 0.1}, "rho_max must be at least 1, got 0.5"),
        ({"rho_max": math.inf}, "rho_max must be at least 1, got inf"),
        ({"reference": "first"}, "reference must be one of .*'running'.*, got 'first'"),
        ({"reference_steps": 2.5}, "reference_steps must be a whole number .*, got 2.5"),
        ({"reference_decay": 1.01}, r"reference_decay must be in \[0, 1\], got 1.01"),
        ({"prior_reference": 0.0}, "prior_reference must be positive or None"),
    ],
)
def test_an_argument_outside_its_range_is_named(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Viscosity(**arguments)


@pytest.mark.parametrize("signal", [math.nan, math.inf, -math.inf])
def test_a_signal_that_is_not_finite_is_refused(signal: float) -> None:
    law = Viscosity()
    with pytest.raises(ValueError, match="the information signal must be finite, got"):
        law.step(signal, law.init())
