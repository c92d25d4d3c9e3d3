"""`IGAConfig`: its arguments are the method's settings, and what cannot work is one clear error."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from poise import IGAConfig
from poise.iga.baselines import BASELINES
from poise.iga.baselines.group_dro import GroupDRO
from poise.iga.config import OLD_NAMES
from poise.iga.settings import IGA


def test_defaults_are_the_methods(tmp_path: Path) -> None:
    config = IGAConfig(str(tmp_path), use_cpu=True)
    assert config.iga() == IGA() and config.iga_space == "direction"
    assert config.baseline(3) is None
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
        *(({"method": m}, m in ("and_mask", "sand_mask", "pcgrad")) for m in BASELINES),
    ],
)
def test_the_engine_is_left_out_where_it_changes_nothing(
    settings: dict[str, Any], needed: bool, make_iga_config: Callable[..., Any]
) -> None:
    config = make_iga_config(**settings)
    assert config.needs_engine is needed
    kind = BASELINES.get(config.iga_method)
    assert type(config.baseline(5)) is (kind or type(None))


@pytest.mark.parametrize("options", [{"step_size": 0.2}, '{"step_size": 0.2}'])
def test_domains_seed_and_options_reach_a_baseline(
    options: Any, make_iga_config: Callable[..., Any]
) -> None:
    config = make_iga_config(method="group_dro", method_options=options, seed=7)
    assert config.baseline(5) == GroupDRO(step_size=0.2, domains=5, seed=7)


def test_linear_tau_rises_from_zero_and_stays(make_iga_config: Callable[..., Any]) -> None:
    config = make_iga_config(tau=2.0, tau_schedule="linear", tau_warmup_steps=4)
    assert [config.tau_at(step) for step in (0, 1, 2, 4, 9)] == [0.0, 0.5, 1.0, 2.0, 2.0]
    assert make_iga_config(tau=2.0).tau_at(0) == 2.0


RETRACTION = {"update": "retraction", "max_grad_norm": 0.0}
WRONG: list[tuple[dict[str, Any], str]] = [
    # Of IGA's fields one of each kind, under their names here.
    ({"space": "wight"}, "iga_space: expected one of weight, factor"),
    ({"mask_eps": 0.0}, "mask_eps: expected a finite number above 0"),
    ({"projection_rank": 2.5}, "projection_rank: expected a whole number of 1 or more"),
    (
        {"update": "retraction", "projection": "none"},
        "expected iga_space 'weight' and a projection",
    ),
    (
        {"space": "direction", "tau": 3.0},
        "tau=3.0 shapes a mask .* in iga_space 'direction'.*choose iga_space 'weight' or 'factor'",
    ),
    ({"space": "direction", "tau_schedule": "linear"}, "iga_space 'direction' has none"),
    ({"tau_schedule": "cosine"}, "tau_schedule: expected one of"),
    ({"tau_warmup_steps": 2.5}, "tau_warmup_steps: expected a whole number"),
    ({"tau_schedule": "linear", "tau_warmup_steps": 0}, "tau_warmup_steps: .* of 1 or more"),
    ({"domain_weights": "rows"}, "domain_weights: expected one of equal"),
    ({"exact_resume": "no"}, "exact_resume: expected one of True, False"),
    ({"save_only_model": True}, "set exact_resume=False"),
    *(
        ({"domains": names}, "iga_domains: expected a list of different names")
        for names in (5, "law", [1, 2], ["law", "law"], [])
    ),
    ({"method": "sgd"}, "iga_method: expected one of iga, erm, .*found 'sgd'"),
    ({"method_options": {"tau": 1}}, "expected none for iga_method 'iga'"),
    ({"method_options": "{tau: 1}"}, r"iga_method_options: .*JSON.*found '\{tau: 1\}' \(Expecting"),
    ({"lr_scheduler_kwargs": "{a}"}, r"lr_scheduler_kwargs: expected a mapping in JSON"),
    *(
        ({name: value}, rf"{name}: expected a mapping in JSON, .*found {re.escape(repr(value))}")
        for name in ("iga_method_options", "lr_scheduler_kwargs", "fsdp_config")
        for value in ("[1]", "word", "3", "", [1])
    ),
    ({"fsdp_config": "absent.json"}, "or a file that holds one, found 'absent.json'"),
    ({"method": "irm", "method_options": {"threshold": 1}}, "'threshold'"),
    ({"method": "and_mask", "tau": 2.0}, "tau=2.0 belongs to iga_method 'iga'"),
    ({"method": "pcgrad", "space": "factor"}, "iga_space='factor' belongs to iga_method"),
    ({"optim": "adalomo"}, "adalomo steps inside the backward, past the gradients that are taken"),
    ({"update": "retraction"}, "without clipping; expected max_grad_norm=0.0, found 1.0"),
    (RETRACTION | {"fp16": True}, "expected fp16=False, found True"),
    *(
        (setting, "{}={!r} does not work with IGA".format(*next(iter(setting.items()))))
        for setting in (
            {"packing": True},
            {"eval_packing": True},
            {"padding_free": True},
            {"loss_type": "dft"},
            {"label_smoothing_factor": 0.1},
            {"use_liger_kernel": True},
            {"torch_compile": True},
            {"auto_find_batch_size": True},
            {"train_sampling_strategy": "group_by_length"},
        )
    ),
    ({"dataset_kwargs": {"skip_prepare_dataset": True}}, "leave out skip_prepare"),
]


@pytest.mark.parametrize(("settings", "message"), WRONG)
def test_a_wrong_setting_is_one_clear_error(
    settings: dict[str, Any], message: str, make_iga_config: Callable[..., Any]
) -> None:
    with pytest.raises(ValueError, match=message):
        make_iga_config(**settings)


def test_an_objective_may_be_trained_inside_the_backward(
    make_iga_config: Callable[..., Any],
) -> None:
    make_iga_config(optim="adalomo", method="erm")


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


def test_a_configuration_may_be_a_file_or_an_object(tmp_path: Path) -> None:
    (tmp_path / "own.json").write_text('{"even_batches": false}')
    read = IGAConfig(str(tmp_path), use_cpu=True, accelerator_config=str(tmp_path / "own.json"))
    assert read.accelerator_config.even_batches is False
    again = IGAConfig(str(tmp_path), use_cpu=True, accelerator_config=read.accelerator_config)
    assert again.accelerator_config is read.accelerator_config
