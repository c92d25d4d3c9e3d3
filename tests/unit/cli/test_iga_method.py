"""`poise iga --method`: what is asked for on the command line reaches the configuration."""

from __future__ import annotations

import pytest

from poise import IGAConfig
from poise.cli import iga
from poise.iga.baselines.vrex import VREx


def _parse(*words: str) -> IGAConfig:
    _, config, _ = iga.make_parser().parse_args_and_config(iga.with_setting(list(words)))
    assert isinstance(config, IGAConfig)
    return config


def test_method_and_options_beside_the_embedded_setting() -> None:
    config = _parse("--method=vrex", '--method_options={"penalty_weight": 3, "warmup_steps": 0}')
    assert config.baseline() == VREx(penalty_weight=3, warmup_steps=0, seed=config.seed)
    assert not config.needs_engine


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--method=vrexx"], "did you mean 'vrex'"),
        (["--method=vrex", '--method_options={"eta": 3}'], "found 'eta'"),
        (["--method=vrex", "--method_options=3"], "expected a mapping"),
        (["--method=vrex", "--tau=2"], "tau=2.0 belongs to method 'iga'"),
    ],
)
def test_a_mistake_is_a_clear_error(words: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        _parse(*words)
