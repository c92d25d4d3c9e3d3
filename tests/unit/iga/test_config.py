from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from poise import IGAConfig
from poise.iga.config import OLD_NAMES
from poise.iga.invariant import IGA


def test_defaults_are_the_methods(tmp_path: Path) -> None:
    config = IGAConfig(str(tmp_path), use_cpu=True)
    assert config.iga() == IGA() and config.iga_space == "direction"
    assert config.completion_only_loss is True
    assert config.needs_engine


def test_every_option_of_ours_has_a_help_text() -> None:
    fields = IGAConfig.__dataclass_fields__
    own = [n for n in IGAConfig.__annotations__ if n in fields and n not in OLD_NAMES]
    assert len(own) >= 15
    assert all(fields[name].metadata.get("help") for name in own)


def test_settings_reach_the_method(make_iga_config: Callable[..., Any]) -> None:
    config = make_iga_config(
        tau=0.5,
        mask_scale="layer",
        mask_eps=1e-3,
        projection="exact",
        projection_rank=3,
        projection_oversampling=2,
    )
    expected = IGA(
        space="weight", tau=0.5, scale="layer", eps=1e-3, projection="exact", rank=3, oversampling=2
    )
    assert config.iga() == expected


@pytest.mark.parametrize(
    ("settings", "needed"),
    [
        ({"tau": 0.0, "projection": "none"}, False),
        ({"tau": 0.0, "space": "factor"}, False),
        ({"tau": 0.0}, True),  # the projection changes the gradient
    ],
)
def test_the_engine_is_left_out_where_it_changes_nothing(
    settings: dict[str, Any], needed: bool, make_iga_config: Callable[..., Any]
) -> None:
    assert make_iga_config(**settings).needs_engine is needed


def test_linear_tau_rises_from_zero_and_stays(make_iga_config: Callable[..., Any]) -> None:
    config = make_iga_config(tau=2.0, tau_schedule="linear", tau_warmup_steps=4)
    assert [config.tau_at(step) for step in (0, 1, 2, 4, 9)] == [0.0, 0.5, 1.0, 2.0, 2.0]
    assert make_iga_config(tau=2.0).tau_at(0) == 2.0


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "unknown space": ({"space": "wight"}, "iga_space: expected one of weight, factor"),
    "unknown schedule": ({"tau_schedule": "cosine"}, "tau_schedule: expected one of"),
    "unknown scale": ({"mask_scale": "mean"}, "mask_scale: expected one of none, layer, snr"),
    "unknown projection": ({"projection": "svd"}, "projection: expected one of"),
    "unknown update": ({"update": "sgd"}, "iga_update: expected one of chain, retraction"),
    "unknown weights": (
        {"domain_weights": "rows"},
        "domain_weights: expected one of equal",
    ),
    "a mask without one": (
        {"space": "direction", "tau": 3.0},
        "tau=3.0 shapes a mask or its projection",
    ),
    "negative tau": ({"tau": -1.0}, "tau: expected a number of 0 or more"),
    "tau not a number": ({"tau": "high"}, "tau: expected a number of 0 or more, found 'high'"),
    "tau nan": ({"tau": float("nan")}, "tau: expected a number of 0 or more, found nan"),
    "tau null": ({"tau": None}, "tau: expected a number of 0 or more, found None"),
    "tau true": ({"tau": True}, "tau: expected a number of 0 or more, found True"),
    "no eps": ({"mask_eps": 0.0}, "mask_eps: expected a finite number above 0"),
    "endless eps": (
        {"mask_eps": float("inf")},
        "mask_eps: expected a .* found inf",
    ),
    "half a rank": (
        {"projection_rank": 2.5},
        "projection_rank: expected a whole number of 1 or more",
    ),
    "rank true": ({"projection_rank": True}, "projection_rank: expected a whole .* found True"),
    "half a column": (
        {"projection_oversampling": 2.5},
        "projection_oversampling: expected a whole number of 0 or more, found 2.5",
    ),
    "half a step": ({"tau_warmup_steps": 2.5}, "tau_warmup_steps: expected a whole number"),
    "domains a number": (
        {"domains": 5},
        "iga_domains: expected a list .* found 5",
    ),
    "domains a word": ({"domains": "law"}, "iga_domains: expected a list .* found 'law'"),
    "domains of numbers": ({"domains": [1, 2]}, r"iga_domains: expected a list .* found \[1, 2\]"),
    "resume a word": ({"exact_resume": "no"}, "exact_resume: expected true or false"),
    "no rank": ({"projection_rank": 0}, "projection_rank: expected a whole number of 1"),
    "negative oversampling": (
        {"projection_oversampling": -1},
        "projection_oversampling: expected a whole number of 0",
    ),
    "no warm-up": (
        {"tau_schedule": "linear", "tau_warmup_steps": 0},
        "tau_warmup_steps: expected a whole number of 1 or more",
    ),
    "domains repeat": (
        {"domains": ["law", "law"]},
        "iga_domains: expected a list of different names",
    ),
    "no domains": ({"domains": []}, "iga_domains: expected a list of different names"),
    "retraction without projection": (
        {"update": "retraction", "projection": "none"},
        "expected space 'weight' and a projection",
    ),
    "model alone, resumed": ({"save_only_model": True}, "set exact_resume=False"),
    "packing": ({"packing": True}, "packing=True does not work with IGA"),
    "padding-free": ({"padding_free": True}, "padding_free=True does not work with IGA"),
    "another loss": ({"loss_type": "dft"}, "loss_type='dft' does not work with IGA"),
    "label smoothing": ({"label_smoothing_factor": 0.1}, "label_smoothing_factor=0.1 does not"),
    "liger": ({"use_liger_kernel": True}, "use_liger_kernel=True does not"),
    "compiled": ({"torch_compile": True}, "torch_compile=True does not"),
    "batch size search": ({"auto_find_batch_size": True}, "auto_find_batch_size=True does not"),
    "by length": ({"train_sampling_strategy": "group_by_length"}, "set it to 'random'"),
    "unprepared": ({"dataset_kwargs": {"skip_prepare_dataset": True}}, "leave out skip_prepare"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_setting_is_one_clear_error(case: str, make_iga_config: Callable[..., Any]) -> None:
    settings, message = WRONG[case]
    with pytest.raises(ValueError, match=message):
        make_iga_config(**settings)


def test_old_names_warn_and_mean_the_new(tmp_path: Path) -> None:
    old = {"space": "factor", "applied_to": "update", "domains": ["a", "b"]}
    with pytest.warns(FutureWarning, match="its old name goes with the next release") as seen:
        config = IGAConfig(str(tmp_path), use_cpu=True, **old)
    assert sum("its old name goes" in str(w.message) for w in seen) == len(old)
    for name, value in old.items():
        assert getattr(config, f"iga_{name}") == value
        assert getattr(config, name) is None


@pytest.mark.filterwarnings("ignore:.*its old name:FutureWarning")
def test_both_names_or_the_old_meaning_of_the_batch_size_are_errors(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="space is the old name of iga_space, found both"):
        IGAConfig(str(tmp_path), use_cpu=True, space="factor", iga_space="weight")
    with pytest.raises(ValueError, match=r"=4 counts sequences now.*number of domains"):
        IGAConfig(str(tmp_path), use_cpu=True, space="factor", per_device_train_batch_size=4)
