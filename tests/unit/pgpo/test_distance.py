"""How far a step moved the policy, and the multiplier that asks for a distance."""

from __future__ import annotations

import itertools
import math
import random

import pytest
import torch

from poise.pgpo.distance import DistanceControl, DistanceState, policy_distance, went

EPS = torch.finfo(torch.float64).eps


def log_probs(seed: int, *shape: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(*shape, dtype=torch.float64, generator=generator)
    return logits.log_softmax(-1)


# The distance


def test_over_the_vocabulary_it_is_the_divergence_of_the_old_from_the_new() -> None:
    old, new = log_probs(0, 5, 7), log_probs(1, 5, 7)
    expected = torch.nn.functional.kl_div(new, old, log_target=True, reduction="sum")
    total, tokens = policy_distance(old, new)
    assert total.item() == pytest.approx(expected.item(), rel=35 * EPS)
    assert tokens.item() == 5


def test_on_sampled_tokens_its_mean_under_the_old_policy_is_the_divergence() -> None:
    (old,), (new,) = log_probs(2, 1, 9), log_probs(3, 1, 9)
    values = torch.stack([policy_distance(old[y : y + 1], new[y : y + 1]).total for y in range(9)])
    assert (values >= 0).all()
    mean = (old.exp() * values).sum()
    exact = policy_distance(old[None], new[None]).total
    assert mean.item() == pytest.approx(exact.item(), rel=100 * EPS)


@pytest.mark.parametrize("shape", [(6,), (6, 4)])
def test_tokens_that_the_mask_leaves_out_do_not_count(shape: tuple[int, ...]) -> None:
    old, new = log_probs(4, *shape), log_probs(5, *shape)
    mask = torch.tensor([1, 0, 1, 1, 0, 0])
    spoiled = new.clone()
    spoiled[mask == 0] = math.nan
    total, tokens = policy_distance(old, spoiled, mask)
    kept = policy_distance(old[mask != 0], new[mask != 0])
    assert total.item() == pytest.approx(kept.total.item(), rel=35 * EPS)
    assert tokens.item() == 3


def test_what_is_impossible_before_and_after_counts_nothing() -> None:
    old, new = log_probs(7, 2, 4), log_probs(8, 2, 4)
    infinite = torch.full((2, 1), -math.inf, dtype=torch.float64)
    wide = [torch.cat([p, infinite], 1) for p in (old, new)]
    assert torch.equal(policy_distance(*wide).total, policy_distance(old, new).total)


@pytest.mark.parametrize(
    ("old", "new", "mask", "message"),
    [
        ((3, 4), (3, 5), None, r"\(3, 4\) and \(3, 5\)"),
        ((3,), (3, 1), None, "of one shape"),
        ((2, 3, 4), (2, 3, 4), None, "of one shape"),
        ((3,), (3,), (2,), r"one value a token, \(3,\), got \(2,\)"),
    ],
)
def test_shapes_that_do_not_fit_are_refused(
    old: tuple[int, ...], new: tuple[int, ...], mask: tuple[int, ...] | None, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        policy_distance(torch.ones(old), torch.ones(new), mask and torch.ones(mask))


# The control


def follow(
    control: DistanceControl, curvature: float, shares: list[float]
) -> tuple[list[float], list[float]]:
    """Multipliers and distances of a policy whose distance is curvature x (share x rho)^2."""
    state, multipliers, distances = control.init(), [], []
    for share in shares:
        asked = control.asked(None, 1.0, share)
        rho, state = control.step(asked, share, state)
        multipliers.append(rho)
        distances.append(curvature * (share * rho) ** 2)
        if share > 0:
            state = control.moved(distances[-1], state)
    return multipliers, distances


@pytest.mark.parametrize("curvature", [1e-6, 1e-2, 1.0, 1e4])
def test_it_comes_to_the_distance_whatever_the_rate_is_worth(curvature: float) -> None:
    control = DistanceControl(target=0.003)
    multipliers, distances = follow(control, curvature, [1.0] * 30)
    assert multipliers[0] == control.first
    assert distances[-1] == pytest.approx(0.003, rel=1e-12)
    for before, after in itertools.pairwise(multipliers):
        assert 1 / 2 <= after / before <= 2


def test_a_schedule_scales_the_distance_and_is_not_taken_for_the_policys_change() -> None:
    shares = [1.0] * 20 + [0.25, 0.25]
    multipliers, distances = follow(DistanceControl(target=0.01), 1.0, shares)
    assert distances[19] == pytest.approx(0.01, rel=1e-12)
    assert distances[20:] == pytest.approx([0.0025, 0.0025], rel=1e-12)
    assert multipliers[20] == pytest.approx(2 * multipliers[19], rel=1e-12)  # half the scale


def test_a_step_without_a_rate_changes_nothing() -> None:
    control = DistanceControl()
    assert control.step(0.0, 0.0, state := DistanceState(0.3, 0.1)) == (1.0, state)


@pytest.mark.parametrize(("moved", "factor"), [(math.nan, 0.5), (math.inf, 0.5), (0.0, 2.0)])
def test_what_cannot_be_a_distance_halves_and_nothing_doubles(moved: float, factor: float) -> None:
    rho, _ = DistanceControl().step(0.003, 1.0, DistanceState(0.1, moved))
    assert rho == 0.1 * factor


def test_a_step_that_was_not_measured_leaves_the_scale() -> None:
    assert DistanceControl().step(0.003, 1.0, DistanceState(0.1)) == (
        0.1,
        DistanceState(0.1, asked=0.003, steps=1),
    )


def test_after_an_unmeasured_step_the_schedule_still_scales_the_distance() -> None:
    control, state = DistanceControl(target=0.01), DistanceState(0.4, moved=None, asked=0.01)
    rho, after = control.step(0.0025, 0.25, state)
    assert rho * 0.25 == after.scale == pytest.approx(0.2)  # half as far in sqrt, at its most
    rho, after = control.step(0.005, 0.5, state)
    assert after.scale == pytest.approx(0.4 * math.sqrt(0.5))


@pytest.mark.parametrize("target", [0.006, 0.001, 0.0003])
def test_where_rounding_is_larger_than_the_distance_steps_still_go_as_far_as_asked(
    target: float,
) -> None:
    control, draw = DistanceControl(target=target), random.Random(0)
    state, distances = control.init(), []
    for _ in range(2000):
        rho, state = control.step(target, 1.0, state)
        distances.append(0.15 * rho**2)

        def rounding() -> float:
            return 0.0015 * draw.lognormvariate(0.0, 0.25)

        if control.reads_rounding(state):
            state = control.rounded(rounding(), state)
        state = control.moved(distances[-1] * draw.lognormvariate(0.0, 0.5) + rounding(), state)
    middle, spread = sorted(distances[50:]), 2.5
    assert target / spread < middle[len(middle) // 2] < target * spread
    assert middle[len(middle) * 19 // 20] < 4 * target


@pytest.mark.parametrize("moved", [0.0, 0.002, 0.5])
def test_without_rounding_what_was_measured_is_believed(moved: float) -> None:
    assert went(DistanceState(0.1, moved, asked=0.006)) == moved
    assert went(DistanceState(0.1, moved, asked=0.006, rounding=1e-12)) == pytest.approx(
        min(max(moved, 0.0015), 0.024), rel=1e-8
    )


def test_rounding_is_a_running_mean_read_in_the_first_steps_and_in_every_eighth() -> None:
    control = DistanceControl()
    state, read = control.init(), []
    for step in range(1, 25):
        _, state = control.step(0.006, 1.0, state)
        if control.reads_rounding(state):
            read.append(step)
            state = control.rounded(float(step), state)
        state = control.moved(0.006 + state.rounding, state)
        assert state.moved == pytest.approx(0.006)
        if step == 8:
            assert state.rounding == pytest.approx(4.5, rel=1e-12)  # the mean of all
    assert read == [*range(1, 9), 16, 24]
    assert state.rounding == pytest.approx((4.5 * 7 + 16) / 8 * 7 / 8 + 24 / 8, rel=1e-12)


def test_the_multiplier_stays_within_its_bounds() -> None:
    control = DistanceControl(rho_min=0.01, rho_max=0.5)
    assert follow(control, 1e9, [1.0] * 30)[0][-1] == 0.01
    assert follow(control, 1e-9, [1.0] * 30)[0][-1] == 0.5


def test_the_signal_acts_on_the_distance() -> None:
    control = DistanceControl(target=0.01, signal_share=0.1)
    assert control.asked(None, 0.5, 1.0) == 0.005
    assert control.asked(0.02, 1.0, 1.0) == pytest.approx(0.002)
    assert control.asked(5.0, 1.0, 0.5) == 0.005
    assert control.asked(-1.0, 1.0, 1.0) == 0.0


@pytest.mark.parametrize(
    "bad",
    [
        {"target": 0.0},
        {"target": math.nan},
        {"first": 2000.0},
        {"rho_min": 0.5},
        {"rho_max": math.inf},
        {"signal_share": 0.0},
    ],
)
def test_values_outside_their_range_are_refused(bad: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=next(iter(bad))):
        DistanceControl(**bad)  # type: ignore[arg-type]
