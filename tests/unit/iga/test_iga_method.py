"""`IGAConfig(method=..., method_options=...)`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from poise.iga.baselines import BASELINES
from poise.iga.baselines.group_dro import GroupDRO


@pytest.mark.parametrize("name", BASELINES)
def test_a_baseline_by_its_name(name: str, make_iga_config: Callable[..., Any]) -> None:
    config = make_iga_config(method=name)
    kind = BASELINES[name]
    baseline = config.baseline(5)
    assert baseline is None if kind is None else type(baseline) is kind
    assert config.needs_engine is (name in ("and_mask", "sand_mask", "pcgrad"))


def test_domains_seed_and_options_reach_it(make_iga_config: Callable[..., Any]) -> None:
    config = make_iga_config(method="group_dro", method_options={"step_size": 0.2}, seed=7)
    assert config.baseline(5) == GroupDRO(step_size=0.2, domains=5, seed=7)
    written = make_iga_config(method="group_dro", method_options='{"step_size": 0.2}', seed=7)
    assert written.baseline(5) == config.baseline(5)


def test_without_a_name_it_is_iga(make_iga_config: Callable[..., Any]) -> None:
    config = make_iga_config()
    assert config.iga_method == "iga"
    assert config.baseline(3) is None
    assert config.needs_engine


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "unknown": ({"method": "sgd"}, "iga_method: expected one of iga, erm, .*found 'sgd'"),
    "options of IGA": ({"method_options": {"tau": 1}}, "expected none for iga_method 'iga'"),
    "no mapping": ({"method": "irm", "method_options": "3"}, "expected a mapping .*found '3'"),
    "option of another": ({"method": "irm", "method_options": {"threshold": 1}}, "'threshold'"),
    "IGA's mask": ({"method": "and_mask", "tau": 2.0}, "tau=2.0 belongs to iga_method 'iga'"),
    "IGA's space": (
        {"method": "pcgrad", "space": "factor"},
        "iga_space='factor' belongs to iga_method",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_setting_is_one_clear_error(case: str, make_iga_config: Callable[..., Any]) -> None:
    settings, message = WRONG[case]
    with pytest.raises(ValueError, match=message):
        make_iga_config(**settings)
