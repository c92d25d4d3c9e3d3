"""`poise iga` on the tiny model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from trl import ModelConfig

from poise import IGAConfig
from poise.cli import iga
from poise.data.load import load_questions
from poise.evaluate.runs import read_run
from poise.iga.baselines.vrex import VREx
from poise.rows import write_jsonl
from tests.unit.cli.conftest import check_left

COMMAND = "iga"
FLAGS: dict[str, Any] = {
    "use_peft": "true",
    "lora_target_modules": "all-linear",
    "max_length": 512,
    "logging_steps": 1,
    "gradient_checkpointing": "false",
    "report_to": "none",
    "dataset_name": "isomers:ordering",
    "count": 8,
    "max_steps": 2,
    "save_steps": 1,
    "per_device_train_batch_size": 8,
    "lora_r": 2,
    "lora_alpha": 4,
    "attn_implementation": "sdpa",
    "dtype": "float32",
    "bf16": "false",
}


def test_a_run_leaves_everything_in_its_folder(run: Any, folder: Path) -> None:
    assert run() == 0
    check_left(folder, "IGA")
    assert (folder / "layers.jsonl").is_file()
    config = read_run(folder).config
    assert config["config.iga_space"] == "direction"
    assert config["script.cue_strength"] is None  # the embedded model's setting has one
    assert config["script.count"] == 8
    metrics = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert {"iga/loss/law", "iga/agreement", "iga/mask_mean"} <= set(metrics[0])


def test_a_run_goes_on_with_the_same_settings_and_more_steps(
    run: Any, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(iga_space="weight") == 0
    assert run(iga_space="weight", resume_from_checkpoint="true", max_steps=3) == 0
    assert (folder / "checkpoint-3").is_dir()
    capsys.readouterr()
    assert run(iga_space="weight") == 2
    error = capsys.readouterr().err
    assert "holds the checkpoints of a run" in error
    assert "by --resume_from_checkpoint auto, or choose another --output_dir" in error
    assert run(iga_space="weight", resume_from_checkpoint="true", tau=2) == 2
    assert "other settings (tau: 1.0 -> 2.0)" in capsys.readouterr().err


def test_a_users_own_isomers_train_and_evaluate_plain_fine_tuning_too(
    run: Any, folder: Path, tmp_path: Path
) -> None:
    for split in ("train", "test"):
        rows = load_questions("isomers:ordering", split, count=4)
        write_jsonl(tmp_path / "mine" / f"{split}.jsonl", rows)
    own: dict[str, Any] = {"dataset_name": tmp_path / "mine", "count": None, "iga_method": "erm"}
    assert run(**own, eval_strategy="epoch") == 0
    metrics = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert "iga/loss/law" in metrics[0]
    assert "iga/mask_mean" not in metrics[0]
    assert any("eval_loss" in line for line in metrics)


def parse(*words: str) -> tuple[iga.IGAScriptArguments, IGAConfig, ModelConfig]:
    return iga.make_parser(words).parse_args_and_config(words)


@pytest.mark.parametrize("flag", ["--count=3", "--depths", "--cue-strength"])
def test_what_is_asked_for_of_other_data_is_kept(flag: str) -> None:
    script, *_ = parse("--dataset_name", "mine.jsonl", *([flag] if "=" in flag else [flag, "3"]))
    kept = [name for name in ("count", "depths", "cue_strength") if getattr(script, name)]
    assert kept == [flag.removeprefix("--").replace("-", "_").removesuffix("=3")]


@pytest.mark.parametrize("model", [None, "smollm2"])
def test_the_embedded_model_on_other_data_keeps_nothing_of_its_own_sets(model: str | None) -> None:
    named = [] if model is None else ["--model-name-or-path", model]
    script, config, _ = parse(*named, "--dataset=mine.jsonl")
    assert (script.count, script.depths, script.cue_strength) == (None, None, None)
    assert config.max_steps == 100


@pytest.mark.parametrize("flag", ["--model_name_or_path=org/model", "--model-name-or-path org/m"])
def test_another_model_takes_nothing_of_the_embedded_models_setting(flag: str) -> None:
    _, config, model = parse(*flag.split(), "--dataset_name", "mine.jsonl")
    plain = IGAConfig(output_dir=config.output_dir)
    for name in ("max_steps", "max_length", "learning_rate", "gradient_checkpointing"):
        assert getattr(config, name) == getattr(plain, name)
    assert model.attn_implementation is None


def test_the_embedded_models_setting_is_named_and_a_file_takes_its_place(
    caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    caplog.set_level("INFO", "poise")
    script, config, model = parse()
    assert str(iga.SETTING) in caplog.text
    assert (model.model_name_or_path, model.use_peft, model.lora_r) == ("default", True, 16)
    assert (script.dataset_name, script.cue_strength) == ("isomers", 0.9)
    assert config.needs_engine
    caplog.clear()
    file = tmp_path / "mine.yaml"
    file.write_text("use_peft: true\niga_space: factor\n")
    script, config, _ = parse("--config", str(file))
    assert (config.iga_space, script.cue_strength) == ("factor", None)
    assert str(iga.SETTING) not in caplog.text


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"iga_space": "weight", "tau": -1}, "tau: expected a number of 0 or more"),
        ({"tau": 3}, "tau=3.0 shapes a mask or its projection"),
        ({"iga_space": "weigth"}, "iga_space: expected one of weight, factor"),
        ({"packing": "true"}, "packing=True does not work with IGA"),
        ({"use_peft": "false"}, "expected --use_peft true beside it"),
        ({"dataset_name": "isomers:astrology"}, "astrology"),
        ({"dataset_name": "science:chemistry"}, "expected a column 'isomer_id'"),
        ({"dataset_name": "mine.jsonl", "depths": 2}, "--depths: expected generated sets"),
        (
            {"dataset_name": "mine.jsonl", "cue_strength": 1},
            "--cue_strength: expected generated sets",
        ),
        ({"spac": "factor"}, "'--spac=factor'; did you mean --iga_space?"),  # and no old one
    ],
)
def test_a_users_mistake_is_one_line(
    flags: dict[str, Any], message: str, run: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(**flags) == 2
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("poise")]
    assert len(errors) == 1
    assert message in errors[0]


def test_method_and_options_beside_the_embedded_setting() -> None:
    _, config, _ = parse(
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
def test_a_mistake_with_a_method_is_a_clear_error(words: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse(*words)


def test_old_names_are_accepted_with_a_warning(
    caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    words = ["--method=vrex", "--tau", "1"]
    new = iga.make_parser(words).with_new_names(words, iga.old_names(words))
    assert new == ["--iga_method=vrex", "--tau", "1"]
    assert "--method is --iga_method now; its old name goes with the next release" in caplog.text
    kept = ["--space", "factor", "--per-device-train-batch-size=4"]  # IGAConfig explains
    assert iga.make_parser(kept).with_new_names(kept, iga.old_names(kept)) == kept
    file = tmp_path / "old.yaml"
    file.write_text("per_device_train_batch_size: 4\n")
    assert iga.old_names(["--config", str(file), "--space", "factor"]) == {}
