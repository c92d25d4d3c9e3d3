"""What every method keeps: finite, its dtype, the order of domains, one domain, micro-batches."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
import torch

from poise.iga.baselines import BASELINES
from poise.iga.engine import GradientEngine
from poise.iga.settings import IGA, Aggregator
from tests.compliance.gradients import gradients
from tests.compliance.methods import METHODS, Method
from tests.equivalence.iga_gradients import Batch, Gradients, difference
from tests.equivalence.iga_models import toy

MIXED = Batch.of([2, 0, 1, 0, 2, 0, 1, 1], number=3)
PAIR = Batch.of([1, 0, 0, 1, 0], number=2)

every_method = pytest.mark.parametrize("name", METHODS)


def that(promise: str) -> Any:
    """Those methods that promise something."""
    names = [name for name, method in METHODS.items() if getattr(method, promise)]
    assert names
    return pytest.mark.parametrize("name", names)


def _relabelled(batch: Batch, numbers: list[int]) -> Batch:
    return Batch(batch.ids, torch.tensor(numbers)[batch.domains], batch.kept, batch.number)


def _step(make: Callable[[int], Method], *batches: Batch, steps: int = 1) -> Gradients:
    """The gradient of the last of some steps, by a method that has seen those before."""
    method, model = make(batches[0].number), toy()
    goes_on = GradientEngine(model, method) if isinstance(method, IGA | Aggregator) else method
    found = [gradients(goes_on, model, batches) for _ in range(steps)]
    return found[-1]


def test_every_baseline_is_in_the_table() -> None:
    assert set(BASELINES) <= {m.settings.get("method") for m in METHODS.values()}


@every_method
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_gradients_are_finite_and_keep_the_parameters_dtype(name: str, dtype: torch.dtype) -> None:
    method, model = METHODS[name].make(), toy().to(dtype)
    for batch in (MIXED, MIXED.rows(0, 2)):  # the second lacks a domain
        found = gradients(method, model, [batch])
        assert all(g.dtype == dtype and bool(g.isfinite().all()) for g in found.values())
        assert any(bool(g.any()) for g in found.values())


@every_method
def test_a_model_that_is_all_zero_has_finite_gradients(name: str) -> None:
    model = toy()
    for parameter in model.parameters():
        parameter.data.zero_()
    found = gradients(METHODS[name].make(), model, [MIXED])
    assert all(bool(g.isfinite().all()) for g in found.values())


@every_method
def test_the_order_of_domains_does_not_matter(name: str) -> None:
    method = METHODS[name]
    batch, numbers = (MIXED, [2, 0, 1]) if method.any_order else (PAIR, [1, 0])
    found = _step(method.make, _relabelled(batch, numbers), steps=3)
    assert difference(found, _step(method.make, batch, steps=3)) < 1e-9


@that("one_domain_is_plain")
def test_one_domain_is_plain_fine_tuning(name: str) -> None:
    batch = Batch.of([1, 1, 1], number=3)
    found = _step(METHODS[name].make, batch, steps=2)
    assert difference(found, gradients(None, toy(), [batch])) < 1e-9


@that("agreement_is_plain")
def test_domains_that_agree_are_plain_fine_tuning(name: str) -> None:
    one = Batch.of([0, 0], number=3)
    ids, kept = one.ids.repeat(3, 1), one.kept.repeat(3, 1)
    batch = Batch(ids, torch.arange(3).repeat_interleave(2), kept, 3)
    found = _step(METHODS[name].make, batch, steps=2)
    assert difference(found, gradients(None, toy(), [batch])) < 1e-7


@that("any_split")
@pytest.mark.parametrize("cuts", [[4], [1, 2, 7]])
def test_micro_batches_of_any_sizes_are_one_batch(name: str, cuts: list[int]) -> None:
    parts = [MIXED.rows(a, b) for a, b in pairwise([0, *cuts, len(MIXED.ids)])]
    make = METHODS[name].make
    assert difference(_step(make, *parts), _step(make, MIXED)) < 1e-9


@that("even_split")
def test_even_micro_batches_are_one_batch(name: str) -> None:
    whole = Batch.of([0, 1, 2, 2, 0, 1], number=3)
    whole.kept[:, 1:] = True
    make, parts = METHODS[name].make, [whole.rows(0, 3), whole.rows(3, 6)]
    assert difference(_step(make, *parts, steps=3), _step(make, whole, steps=3)) < 1e-9


NEUTRAL = [name for name, method in METHODS.items() if method.neutral is not None]


@pytest.mark.parametrize("name", NEUTRAL)
def test_the_neutral_setting_is_plain_fine_tuning(name: str) -> None:
    method = METHODS[name]

    def make(domains: int) -> Method:
        return method.make(domains, **method.neutral or {})

    assert difference(_step(make, MIXED, steps=3), gradients(None, toy(), [MIXED])) < 1e-9


@pytest.mark.parametrize("name", [name for name in METHODS if name != "erm"])
def test_each_method_is_something_else_than_plain_fine_tuning(name: str) -> None:
    """Or nothing here would tell whether it runs at all."""
    found = _step(METHODS[name].make, MIXED, steps=3)
    assert difference(found, gradients(None, toy(), [MIXED])) > 1e-4
