"""What the formulas and the table of every method do not say of a baseline."""

from __future__ import annotations

import json
import sys
from typing import Any

import pytest
import torch

from poise.iga.baselines import make_baseline
from poise.iga.settings import Aggregator, Evidence, Objective

THIRDS = torch.full((3,), 1 / 3, dtype=torch.float64)
ROWS = torch.randn(3, 40, generator=torch.Generator().manual_seed(0))


def _aggregator(name: str, **options: Any) -> Aggregator:
    method = make_baseline(name, options)
    assert isinstance(method, Aggregator)
    return method


def _evidence(losses: list[float], counts: list[int]) -> Evidence:
    tokens = torch.tensor(counts, dtype=torch.float64)
    weights = (tokens > 0) / (tokens > 0).sum()
    return Evidence(torch.tensor(losses).double(), torch.zeros(len(losses)), weights, tokens)


def test_group_dro_weighs_by_the_mean_loss_over_micro_batches_and_ranks() -> None:
    one, several = (make_baseline("group_dro", {"step_size": 1.0}, domains=3) for _ in range(2))
    assert isinstance(one, Objective)
    assert isinstance(several, Objective)
    one(_evidence([2.0, 1.0, 0.0], [4, 2, 0]))
    for losses, counts in (([5.0, 0.0, 0.0], [1, 0, 0]), ([1.0, 1.0, 0.0], [3, 2, 0])):
        several(_evidence(losses, counts))
    here = torch.tensor([[8.0, 2.0, 0.0], [4.0, 2.0, 0.0]])  # sums of losses, tokens
    none = make_baseline("group_dro", {"step_size": 1.0}, domains=3)  # a rank without a loss
    assert isinstance(none, Objective)
    for method, elsewhere in ((one, 0.0), (several, 0.0), (none, here)):
        method.finish_step(lambda values, other=elsewhere: values + other)
        expected = torch.tensor([2.0, 1.0, 0.0]).double().softmax(0)
        assert method.state_dict()["q"] == pytest.approx(expected.tolist())


def test_a_loss_that_overflows_does_not_reach_group_dros_weights() -> None:
    method = make_baseline("group_dro", {"step_size": 1.0}, domains=2)
    assert isinstance(method, Objective)
    for losses in ([1.0, 0.0], [float("inf"), 1.0], [1.0, 0.0]):
        method(_evidence(losses, [1, 1]))
        method.finish_step(lambda values: values)
    assert method.state_dict()["q"] == pytest.approx(torch.tensor([2.0, 0.0]).softmax(0).tolist())


def test_group_dro_goes_on_from_its_state_and_refuses_that_of_other_data() -> None:
    first, second, other = (make_baseline("group_dro", {}, domains=k) for k in (2, 2, 3))
    assert first is not None and second is not None and other is not None
    first(_evidence([2.0, 1.0], [1, 1]))  # type: ignore[arg-type, call-arg]
    first.finish_step(lambda values: values)  # type: ignore[union-attr]
    state = json.loads(json.dumps(first.state_dict()))
    second.load_state_dict(state)
    assert second.state_dict() == first.state_dict()
    with pytest.raises(ValueError, match="expected weights of 3 domains, found 2"):
        other.load_state_dict(state)


@pytest.mark.parametrize("name", ["and_mask", "sand_mask"])
def test_elements_without_a_gradient_are_no_conflict(name: str) -> None:
    """LoRA's A has none at the first step, as B is 0."""
    method = _aggregator(name)
    alone = method(ROWS, THIRDS)
    beside = method(torch.cat([ROWS, torch.zeros(3, 40)], 1), THIRDS)
    torch.testing.assert_close(beside[:40], alone)
    assert not bool(beside[40:].any())
    first, second = method.figures.take(), _aggregator(name)
    second(ROWS, THIRDS)
    assert first["mask_mean"] == pytest.approx(second.figures.take()["mask_mean"])


def test_the_and_mask_lets_through_what_all_domains_agree_on() -> None:
    rows = torch.tensor([[1.0, 1.0, -2.0, 0.0], [3.0, -1.0, -2.0, 1.0]])
    found = _aggregator("and_mask")(rows, torch.tensor([0.5, 0.5]))
    assert found.tolist() == [4.0, 0.0, -4.0, 0.0]  # twice, as half of the elements pass


def test_pcgrad_logs_the_share_of_pairs_in_conflict() -> None:
    method = _aggregator("pcgrad")
    method(torch.tensor([[1.0, 0.0], [-1.0, 0.5], [0.0, 1.0]]), THIRDS)
    assert method.figures.take()["conflicts"] == pytest.approx(1 / 3)


@pytest.mark.parametrize("name", ["pcgrad", "torchjd:GradDrop"])
def test_what_is_drawn_follows_from_the_seed_and_what_was_drawn_before(name: str) -> None:
    rows = ROWS - ROWS.mean(0)  # they conflict
    first, second, other = (make_baseline(name, {}, seed=seed) for seed in (1, 1, 2))
    assert isinstance(first, Aggregator)
    assert isinstance(second, Aggregator)
    assert isinstance(other, Aggregator)
    torch.manual_seed(0)
    before = torch.get_rng_state()
    results = [first(rows, THIRDS) for _ in range(8)]
    assert torch.equal(torch.get_rng_state(), before)  # dropout's numbers are left alone
    torch.rand(7)
    for _ in range(4):
        second(rows, THIRDS)
    resumed = make_baseline(name, {}, seed=1)
    assert isinstance(resumed, Aggregator)
    resumed.load_state_dict(json.loads(json.dumps(second.state_dict())))
    assert all(torch.equal(resumed(rows, THIRDS), result) for result in results[4:])
    assert any(not torch.equal(result, results[0]) for result in results)
    assert any(not torch.equal(other(rows, THIRDS), result) for result in results)


def test_torchjd_gets_rows_that_weigh_as_the_domains() -> None:
    weights = torch.tensor([0.5, 0.25, 0.25])
    found = _aggregator("torchjd:Mean")(ROWS, weights)
    torch.testing.assert_close(found, weights @ ROWS)


WRONG: dict[str, tuple[str, dict[str, Any], str]] = {
    "unknown": ("vrexx", {}, r"expected one of iga, erm, irm.*found 'vrexx'; did you mean 'vrex'"),
    "unknown option": (
        "vrex",
        {"eta": 1},
        "among penalty_weight, warmup_steps for iga_method 'vrex', found 'eta'",
    ),
    "options of plain fine-tuning": ("erm", {"eta": 1}, "expected no options for iga_method 'erm'"),
    "negative penalty": ("irm", {"penalty_weight": -1}, "penalty_weight: expected a number of 0"),
    "no number": ("fishr", {"penalty_weight": "high"}, "expected a number of 0 or more, found 'hi"),
    "neither": ("fishr", {"relative": "no"}, "relative: expected True or False, found 'no'"),
    "infinite": ("irm", {"penalty_weight": float("inf")}, "found inf"),
    "not a number": ("group_dro", {"step_size": float("nan")}, "step_size: .*found nan"),
    "warm-up": ("irm", {"warmup_steps": -1}, "warmup_steps: expected"),
    "above 1": ("and_mask", {"threshold": 1.5}, "threshold: expected a number from 0 to 1"),
    "nothing passes": ("sand_mask", {"threshold": 1.0}, "whose mask is 0 everywhere"),
    "unknown to TorchJD": ("torchjd:Best", {}, "aggregator of TorchJD among .*MGDA.*found 'Best'"),
    "no aggregator": ("torchjd:MGDAWeighting", {}, "found 'MGDAWeighting'"),
    "TorchJD's arguments": ("torchjd:CAGrad", {"b": 1}, "do not fit TorchJD's aggregator"),
    "state": ("torchjd:ExcessMTL", {}, "keeps a state from step to step"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_name_or_option_is_one_clear_error(case: str) -> None:
    name, options, message = WRONG[case]
    with pytest.raises(ValueError, match=message):
        make_baseline(name, options)


def test_without_torchjd_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchjd", None)
    with pytest.raises(ImportError, match=r"pip install 'poise\[baselines\]'"):
        make_baseline("pcgrad")
