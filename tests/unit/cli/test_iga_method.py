"""`poise iga --iga_method`: what is asked for on the command line reaches the configuration."""

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
    config = _parse(
        "--iga_method=vrex", '--iga_method_options={"penalty_weight": 3, "warmup_steps": 0}'
    )
    assert config.baseline() == VREx(penalty_weight=3, warmup_steps=0, seed=config.seed)
    assert not config.needs_engine


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--iga_method=vrexx"], "did you mean 'vrex'"),
        (["--iga_method=vrex", '--iga_method_options={"eta": 3}'], "found 'eta'"),
        (["--iga_method=vrex", "--iga_method_options=3"], "expected a mapping"),
        (["--iga_method=vrex", "--tau=2"], "tau=2.0 belongs to iga_method 'iga'"),
    ],
)
def test_a_mistake_is_a_clear_error(words: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        _parse(*words)


def test_old_names_are_accepted_with_a_warning() -> None:
    with pytest.warns(FutureWarning, match="--method is --iga_method now"):
        words = iga.with_new_names(["--method=vrex", "--tau", "1"])
    assert words == ["--iga_method=vrex", "--tau", "1"]
    kept = ["--space", "factor", "--per-device-train-batch-size=4"]  # IGAConfig explains
    assert iga.with_new_names(kept) == kept
