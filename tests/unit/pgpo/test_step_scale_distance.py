"""Steps of a set distance in any torch loop: told by the loop, measured, or corrected."""

from __future__ import annotations

import json
import math
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor, nn, optim

from poise import StepScale
from poise.pgpo.distance import DistanceControl, DistanceSum, policy_distance
from poise.pgpo.signal import SignalSum
from poise.pgpo.viscosity import Viscosity

from .optimizer_steps import SignSteps, signal

TARGET = 0.002
NO_LAW = Viscosity(sensitivity=0.0)


class Policy:
    """A softmax policy that learns to say what it is told to."""

    def __init__(self, make: Any, rate: float, **options: Any) -> None:
        generator = torch.Generator().manual_seed(1)
        self.inputs = torch.randn(12, 5, dtype=torch.float64, generator=generator)
        self.wanted = torch.randint(7, (12,), generator=generator)
        weight = torch.randn(7, 5, dtype=torch.float64, generator=generator)
        self.weight = nn.Parameter(0.1 * weight)
        self.weigh = 1.0
        self.optimizer = make([self.weight], lr=rate)
        self.scale = StepScale(self.optimizer, **{"viscosity": NO_LAW} | options)

    def log_probs(self) -> Tensor:
        return (self.inputs @ self.weight.T).log_softmax(-1)

    def step(self) -> None:
        self.optimizer.zero_grad()
        (self.weigh * nn.functional.nll_loss(self.log_probs(), self.wanted)).backward()
        self.optimizer.step()


def control(**options: Any) -> DistanceControl:
    return DistanceControl(target=TARGET, **options)


def measured(make: Any, rate: float, **options: Any) -> Policy:
    policy: Policy

    def look() -> Tensor:
        return policy.log_probs().detach()

    policy = Policy(make, rate, distance=control(**options), policy=look)
    return policy


@pytest.mark.filterwarnings("ignore:a step moved the policy by")  # the first, at a rate of 100
@pytest.mark.parametrize(
    ("make", "rate"),
    [(optim.AdamW, r) for r in (1e-4, 1e-2, 1.0)]
    + [(optim.SGD, r) for r in (1e-2, 100.0)]
    + [(SignSteps, r) for r in (0.03, 1.0)],
)
def test_steps_go_as_far_as_asked_at_any_rate(make: Any, rate: float) -> None:
    policy, distances = measured(make, rate), []
    for _ in range(20):
        policy.step()
        assert policy.scale.last.asked == TARGET
        distances.append(policy.scale.last.moved)
    # What a step goes is known when it is over: the next one's correction is at most this.
    assert all(TARGET / 2 < distance < TARGET * 2 for distance in distances[-5:]), distances


def test_a_loop_that_tells_how_far_it_went_takes_the_same_steps() -> None:
    one, other = measured(optim.AdamW, 1e-2), Policy(optim.AdamW, 1e-2, distance=control())
    for _ in range(8):
        one.step()
        old = other.log_probs().detach()
        other.step()
        other.scale.moved(policy_distance(old, other.log_probs()))
        assert other.scale.last == one.scale.last
    assert torch.equal(one.weight, other.weight)


def test_rounding_is_taken_off_what_a_step_is_told_to_have_gone() -> None:
    """A policy in bfloat16, whose rounding is larger than the distance asked for."""

    def coarse(policy: Policy, nudge: float = 0.0) -> Tensor:
        logits = 30 + (policy.inputs * (1 + nudge)) @ policy.weight.T  # bfloat16's unit is 1/8
        return logits.detach().bfloat16().double().log_softmax(-1)

    one = Policy(
        optim.SGD,
        1e-2,
        distance=control(),
        policy=lambda: coarse(one),
        policy_again=lambda: coarse(one, nudge=0.05),
    )
    other = Policy(optim.SGD, 1e-2, distance=control())
    for step in range(20):
        one.step()
        old, again = coarse(other), coarse(other, nudge=0.05)
        other.step()
        reads = step < 8 or step % 8 == 7
        distances = [policy_distance(old, part) for part in (coarse(other), again)]
        other.scale.moved(*distances[: 1 + reads])
        assert other.scale.last == one.scale.last
        raw, rounding = ((total / tokens).item() for total, tokens in distances)
        if step == 0:
            assert one.scale.last.rounding == rounding > 0
        assert one.scale.last.moved == raw - one.scale.last.rounding
    assert torch.equal(one.weight, other.weight)
    assert one.scale.state_dict()["distance"]["rounding"] == one.scale.last.rounding


def _sum(value: float) -> DistanceSum:
    return DistanceSum(torch.tensor(value), torch.tensor(1.0))


@pytest.mark.filterwarnings("ignore:.* nats a token were told to be rounding")
def test_rounding_is_told_of_steps_that_are_not_taken_too() -> None:
    policy = Policy(optim.SGD, 0.1, distance=control())
    for _ in range(3):
        policy.scale.skip()
        policy.optimizer.step()
        policy.scale.moved(_sum(0.0), _sum(0.5))
    policy.step()
    policy.scale.moved(_sum(1.5), _sum(0.5))
    assert (policy.scale.last.moved, policy.scale.last.rounding) == (1.0, 0.5)


@pytest.mark.filterwarnings("ignore:.* nats a token were told to be rounding")
@pytest.mark.parametrize("broken", [math.nan, math.inf])
def test_a_measurement_of_rounding_that_is_no_number_does_not_stay(broken: float) -> None:
    policy = Policy(optim.SGD, 0.1, distance=control())
    for rounding in (0.5, broken, 0.5):
        policy.step()
        policy.scale.moved(_sum(1.5), _sum(rounding))
        assert (policy.scale.last.moved, policy.scale.last.rounding) == (1.0, 0.5)


def test_a_run_that_goes_on_without_rounding_takes_none_off() -> None:
    """As one in float32 does that was in bfloat16."""
    policy = measured(optim.SGD, 0.1)
    policy.scale.policy_again = lambda: None
    state = {"scale": 0.02, "moved": 0.0, "asked": TARGET, "rounding": 0.5, "steps": 7}
    policy.scale.load_state_dict({"reference": None, "steps": 0, "distance": state})
    policy.step()
    assert policy.scale.last.rounding == 0.0


def test_a_correction_goes_all_the_way_back_beside_a_little_rounding() -> None:
    """What was measured is believed where it is far larger than rounding."""
    generator = torch.Generator().manual_seed(3)

    def again() -> Tensor:
        noise = torch.randn(12, 7, dtype=torch.float64, generator=generator)
        return (policy.log_probs() + 0.01 * noise).log_softmax(-1)

    policy = measured(optim.SGD, 0.1, afterwards=True)
    policy.scale.policy_again = again
    for weigh, steps in ((1.0, 10), (1e-2, 12), (1.0, 1)):
        policy.weigh = weigh
        for _ in range(steps):
            policy.step()
    last = policy.scale.last
    assert 0 < last.rounding < TARGET / 10
    # A step 100 times too long, corrected twice by a factor of the exponent in `DistanceControl`.
    assert last.moved is not None and last.moved < 2 * TARGET


def test_a_fused_step_that_a_gradient_scaler_drops_has_no_distance() -> None:
    weight, inputs = nn.Parameter(torch.eye(4)), torch.randn(6, 4)
    optimizer = optim.AdamW([weight], lr=0.1, fused=True)
    scale = StepScale(
        optimizer, distance=control(), policy=lambda: (inputs @ weight.T).log_softmax(-1)
    )
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    for place in range(4):
        optimizer.zero_grad()
        scaler.scale((inputs @ weight.T).square().mean()).backward()
        if place in (1, 2):
            weight.grad = torch.full_like(weight, math.inf)
        scale.observe(SignalSum(torch.tensor(1.0), torch.tensor(1.0)))
        before, state = weight.detach().clone(), scale.state_dict()
        scaler.step(optimizer)
        scaler.update()
        is_taken = not torch.equal(weight, before)
        assert is_taken == (place in (0, 3))
        assert is_taken == (scale.state_dict() != state)


def test_a_second_reading_needs_a_first() -> None:
    with pytest.raises(ValueError, match="found no policy; pass both"):
        Policy(optim.SGD, 0.1, distance=control(), policy_again=lambda: None)


def test_a_state_from_before_rounding_was_kept_is_taken() -> None:
    policy = measured(optim.SGD, 0.1)
    policy.step()
    state = policy.scale.state_dict()
    del state["distance"]["rounding"], state["distance"]["steps"]
    policy.scale.load_state_dict(state)
    assert policy.scale.distance_state.rounding == 0.0


def test_a_correction_afterwards_makes_the_very_step_right() -> None:
    policy = measured(optim.AdamW, 0.3, first=0.5, afterwards=True)
    for _ in range(5):
        old = policy.log_probs().detach()
        policy.step()
        total, tokens = policy_distance(old, policy.log_probs())
        assert (total / tokens).item() == pytest.approx(policy.scale.last.moved, rel=1e-9)
        assert policy.scale.last.moved == pytest.approx(TARGET, rel=0.15)
        rates = [group["lr"] for group in policy.optimizer.param_groups]
        assert rates == [0.3]


@pytest.mark.filterwarnings("ignore:a step moved the policy by")  # that is what it shows
@pytest.mark.parametrize("make", [optim.RMSprop, optim.Adagrad])
def test_on_a_batch_that_is_nearly_learned_a_correction_afterwards_holds_the_distance(
    make: Any,
) -> None:
    """Without momentum the next gradient tells nothing of a step across the valley."""
    largest = {}
    for afterwards in (False, True):
        policy, distances = measured(make, 1e-2, afterwards=afterwards), []
        for _ in range(60):
            policy.step()
            distances.append(policy.scale.last.moved)
        largest[afterwards] = max(distances) / TARGET
    assert largest[False] > 4, largest
    assert largest[True] < 1.3, largest


def test_the_signals_factor_is_of_the_distance() -> None:
    law = Viscosity(sensitivity=1.0, rho_min=0.01, rho_max=100.0)
    policy = Policy(optim.SGD, 0.1, viscosity=law, distance=control())
    policy.scale.observe(signal(2.5))
    policy.step()
    assert policy.scale.last.asked == pytest.approx(2.5 * TARGET, rel=1e-12)
    assert policy.scale.last.multiplier == control().first
    assert policy.scale.last.factor == pytest.approx(2.5, rel=1e-12)  # what a standstill is told by


def test_a_step_that_is_skipped_is_not_taken_for_one_that_went_nowhere() -> None:
    policy = measured(optim.SGD, 0.1)
    for _ in range(3):
        policy.step()
    state = policy.scale.state_dict()
    policy.optimizer.zero_grad(set_to_none=True)
    policy.scale.skip()
    policy.optimizer.step()
    assert policy.scale.last.multiplier == 1.0 and policy.scale.last.moved is None
    assert policy.scale.state_dict() == state
    policy.step()
    assert policy.scale.last.moved is not None


def test_a_run_that_stopped_at_a_skipped_step_does_not_skip_the_next() -> None:
    policy = measured(optim.SGD, 0.1)
    policy.step()
    policy.scale.skip()  # and the loop ends before the step
    policy.scale.discard()
    policy.step()
    assert policy.scale.last.moved is not None


def test_no_tokens_at_a_reading_leave_the_rounding_that_is_known() -> None:
    sayings: list[Tensor | None] = []
    policy = Policy(
        optim.SGD,
        1e-2,
        distance=control(),
        policy=lambda: None if sayings == [None] else policy.log_probs().detach(),
        policy_again=lambda: sayings[0],
    )
    sayings.append(policy.log_probs().detach() - 1e-4)  # 1e-4 nats of rounding
    policy.step()
    known = policy.scale.last.rounding
    assert known == pytest.approx(1e-4, rel=1e-6)
    sayings[0] = None
    policy.step()
    assert policy.scale.last.rounding == known


def test_rounding_that_holds_the_step_or_is_none_is_named() -> None:
    policy = Policy(optim.SGD, 1e-2, distance=control())
    old = policy.log_probs().detach()
    policy.step()
    new = policy.log_probs().detach()
    with pytest.raises(ValueError, match="expected a distance of 0 or more"):
        policy.scale.moved(policy_distance(old, new), policy_distance(old, old + 1))
    with pytest.warns(UserWarning, match="told to be rounding.*both readings before the step"):
        policy.scale.moved(policy_distance(old, new), policy_distance(old, old.roll(1, 0)))


def test_a_multiplier_at_its_least_is_named_where_the_step_is_still_too_long() -> None:
    least = control(rho_min=0.01, first=0.01)
    policy: Policy = Policy(
        optim.SGD, 100.0, distance=least, policy=lambda: policy.log_probs().detach()
    )
    with pytest.warns(UserWarning) as found:
        policy.step()
        policy.step()
    assert any("at rho_min=0.01 and a step still moved" in str(w.message) for w in found)


def test_a_distance_in_nats_alone_is_refused() -> None:
    with pytest.raises(TypeError, match=r"expected DistanceControl.*found 0\.006"):
        Policy(optim.SGD, 0.1, distance=0.006)


def test_a_schedule_scales_the_distance() -> None:
    policy = measured(optim.SGD, 0.5)
    schedule = optim.lr_scheduler.LambdaLR(policy.optimizer, lambda step: max(0.0, 1 - step / 4))
    asked = []
    for _ in range(5):
        policy.step()
        schedule.step()
        asked.append(policy.scale.last.asked)
    assert asked == pytest.approx([TARGET, 0.75 * TARGET, 0.5 * TARGET, 0.25 * TARGET, 0.0])
    assert policy.scale.last.moved is None  # the step without a rate


def test_decoupled_decay_keeps_its_size() -> None:
    decay, rate = 0.25, 0.5
    policy = Policy(
        lambda params, lr: optim.AdamW(params, lr=lr, weight_decay=decay), rate, distance=control()
    )
    before = policy.weight.detach().clone()
    policy.weight.grad = torch.zeros_like(policy.weight)
    policy.optimizer.step()
    assert policy.scale.last.multiplier == control().first
    torch.testing.assert_close(
        policy.weight.detach(), before * (1 - rate * decay), rtol=1e-14, atol=0
    )


def test_it_goes_on_where_it_was_saved() -> None:
    whole, broken = measured(optim.SGD, 0.1), measured(optim.SGD, 0.1)
    for _ in range(4):
        whole.step()
        broken.step()
    resumed = measured(optim.SGD, 0.1)
    resumed.weight.data.copy_(broken.weight.data)
    resumed.scale.load_state_dict(json.loads(json.dumps(broken.scale.state_dict())))
    for _ in range(4):
        whole.step()
        resumed.step()
    assert torch.equal(whole.weight, resumed.weight)
    assert resumed.scale.last == whole.scale.last


@pytest.mark.parametrize("how", ["skip", "rate of 0", "a scaler"])
def test_a_step_that_was_not_taken_has_no_distance(how: str) -> None:
    """A loop tells how far each step went, those too that did not go."""
    policy, distances = Policy(optim.AdamW, 0.1, distance=control()), []
    for place in range(24):
        before, is_off = policy.log_probs().detach(), place % 2 == 1
        group = policy.optimizer.param_groups[0]
        group["lr"] = 0.0 if is_off and how == "rate of 0" else 0.1
        if not (is_off and how == "a scaler"):
            if is_off and how == "skip":
                policy.optimizer.zero_grad()
                policy.scale.skip()
                policy.optimizer.step()
            else:
                policy.step()
        moved = policy_distance(before, policy.log_probs())
        policy.scale.moved(moved)
        if not is_off:
            distances.append(float(moved.total / moved.tokens))
    assert all(TARGET / 3 < distance < TARGET * 3 for distance in distances[-5:]), distances


def test_a_correction_stays_within_the_bounds() -> None:
    policy = measured(optim.AdamW, 1e-3, rho_max=0.05, afterwards=True)
    with pytest.warns(UserWarning, match="the multiplier is at rho_max=0.05") as warned:
        for _ in range(5):
            policy.step()
            assert policy.scale.last.multiplier <= 0.05
    assert len(warned) == 1


def test_a_gradient_that_comes_back_is_named_where_its_step_goes_too_far() -> None:
    policy = measured(optim.SGD, 0.1)
    for weigh, steps in ((1.0, 10), (1e-2, 8)):
        policy.weigh = weigh
        for _ in range(steps):
            policy.step()
    policy.weigh = 1.0
    with pytest.warns(UserWarning, match="a step moved the policy by"):
        policy.step()


def test_a_policy_that_says_nothing_or_no_number_is_named() -> None:
    def scaled(returned: torch.Tensor | None) -> Policy:
        options: dict[str, Any] = {"distance": control(), "policy": lambda: returned}
        return Policy(optim.SGD, 0.1, **options)

    silent, broken = scaled(None), scaled(torch.full((3, 4), math.nan))
    silent.step()
    silent.step()
    with pytest.warns(UserWarning, match="returned no log-probabilities around the last 3 steps"):
        silent.step()
    with pytest.warns(UserWarning, match="the distance of a step is not a number"):
        broken.step()


def test_a_signal_below_zero_makes_the_steps_ever_smaller() -> None:
    policy = measured(optim.AdamW, 0.1, signal_share=0.1)
    multipliers = []
    for _ in range(6):
        policy.scale.observe(SignalSum(torch.tensor(-1.0), torch.tensor(1.0)))
        policy.step()
        multipliers.append(policy.scale.last.multiplier)
    assert all(b == a / 2 for a, b in pairwise(multipliers[1:])), multipliers


def test_a_loop_that_forgets_to_tell_is_warned_once() -> None:
    policy = Policy(optim.SGD, 0.1, distance=control())
    with pytest.warns(UserWarning, match="call moved") as seen:
        for _ in range(8):
            policy.step()
    assert len(seen) == 1


@pytest.mark.parametrize("asks", [False, True])
def test_logits_in_the_place_of_log_probabilities_are_refused(asks: bool) -> None:
    """Theirs grow with every step, and so would the multiplier."""
    logits = nn.Parameter(torch.zeros(8, 4))
    optimizer = optim.SGD([logits], lr=1.0)
    scale = StepScale(
        optimizer, distance=control(), policy=(lambda: logits.detach().clone()) if asks else None
    )

    def step() -> None:
        before = logits.detach().clone()
        logits.grad = torch.full_like(logits, -1.0)
        optimizer.step()
        if not asks:
            scale.moved(policy_distance(before, logits))

    with pytest.raises(ValueError, match=r"found -.* nats.*log_softmax\(-1\)"):
        step()


def test_moved_takes_what_policy_distance_returns() -> None:
    policy = Policy(optim.SGD, 0.1, distance=control())
    policy.step()
    with pytest.raises(TypeError, match="expected a DistanceSum"):
        policy.scale.moved(0.1)
    with pytest.raises(ValueError, match="distance=DistanceControl"):
        plain = Policy(optim.SGD, 0.1)
        plain.scale.moved(policy_distance(plain.log_probs(), plain.log_probs()))
    with pytest.raises(ValueError, match="expected a policy"):
        Policy(optim.SGD, 0.1, distance=control(afterwards=True))
    with pytest.raises(ValueError, match="without policy="):
        other = measured(optim.SGD, 0.1)
        other.scale.moved(policy_distance(other.log_probs(), other.log_probs()))


@pytest.mark.parametrize("saved_with", [True, False])
def test_a_state_of_another_multiplier_is_named(saved_with: bool) -> None:
    one = Policy(optim.SGD, 0.1, distance=control() if saved_with else None)
    other = Policy(optim.SGD, 0.1, distance=None if saved_with else control())
    with pytest.warns(UserWarning, match="saved with"):
        other.scale.load_state_dict(one.scale.state_dict())
