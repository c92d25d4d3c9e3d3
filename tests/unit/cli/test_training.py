"""What the training commands share."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from poise import precision
from poise.cli import iga, pgpo
from poise.cli.training import add_model_arguments, load_datasets
from poise.rows import write_jsonl
from poise.trl.logs import changed_settings, write_run_description


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ([], "float32"),
        (["--use_peft"], "bfloat16"),
        (["--use_peft", "--bf16", "false"], "float32"),
        (["--use_peft", "--dtype", "float32"], "float32"),
        (["--dtype", "bfloat16"], "bfloat16"),
    ],
)
def test_a_model_is_loaded_in_what_the_machine_is_quick_in(
    flags: list[str], expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Here one that is quick in bfloat16; what is trained is in float32 all the same."""
    monkeypatch.setattr(precision, "has_fast_bfloat16", lambda device: True)
    parser = pgpo.make_parser()
    _, config, model = parser.parse_args_and_config(
        ["--use_cpu", "true", "--output_dir", str(tmp_path), *flags]
    )
    add_model_arguments(config, model)
    assert config.model_init_kwargs["dtype"] == model.dtype == expected


@pytest.mark.parametrize("began_quick", [True, False])
def test_a_run_goes_on_in_its_precision_on_another_machine(
    began_quick: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def arguments(is_quick: bool, *flags: str) -> dict[str, Any]:
        monkeypatch.setattr(precision, "has_fast_bfloat16", lambda device: is_quick)
        words = ["--use_cpu", "true", "--use_peft", "--output_dir", str(tmp_path), *flags]
        _, config, model = pgpo.make_parser().parse_args_and_config(words)
        add_model_arguments(config, model)
        return {"config": config, "model": model}

    trainer = SimpleNamespace(is_world_process_zero=lambda: True)
    write_run_description(tmp_path, trainer, **arguments(began_quick))
    resume = ["--resume_from_checkpoint", "true"]
    later = arguments(not began_quick, *resume)
    assert later["config"].bf16 is began_quick
    assert changed_settings(tmp_path, **later) == []
    named = arguments(not began_quick, *resume, "--bf16", str(not began_quick))
    assert f"bf16: {began_quick} -> {not began_quick}" in changed_settings(tmp_path, **named)


@pytest.fixture(params=["iga", "pgpo"])
def load(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    """The rows of a command line, by the trainer's argument."""

    def load(dataset: str, *flags: str) -> dict[str, Any]:
        words = ["--model_name_or_path", "org/model", "--output_dir", str(tmp_path / "run")]
        words += ["--use_cpu", "true", "--dataset_name", dataset, *flags]
        parser = iga.make_parser(words) if request.param == "iga" else pgpo.make_parser()
        script, config, _ = parser.parse_args_and_config(words)
        return load_datasets(script, config)

    return load


STEPS = ("--eval_strategy", "steps", "--eval_steps", "1")


def test_a_run_that_evaluates_does_so_on_the_test_split(load: Any, tmp_path: Path) -> None:
    for split, rows in (("train", 5), ("test", 3), ("validation", 2)):
        write_jsonl(tmp_path / f"{split}.jsonl", [{"prompt": f"{split} {n}"} for n in range(rows)])
    folder = str(tmp_path)
    assert load(folder, "--count", "4").keys() == {"train_dataset"}
    for flags in (STEPS, ("--eval_on_start", "true")):
        rows = load(folder, "--count", "4", *flags)
        assert len(rows["train_dataset"]) == 4
        assert rows["eval_dataset"]["prompt"] == ["test 0", "test 1", "test 2"]
    other = load(folder, *STEPS, "--dataset_test_split", "validation")
    assert other["eval_dataset"]["prompt"] == ["validation 0", "validation 1"]


def test_generated_and_embedded_rows_have_a_test_split(load: Any) -> None:
    made = load("isomers:ordering", "--count", "2", *STEPS)
    assert {name: len(set(rows["isomer_id"])) for name, rows in made.items()} == {
        "train_dataset": 2,
        "eval_dataset": 50,
    }
    assert not set(made["train_dataset"]["prompt"]) & set(made["eval_dataset"]["prompt"])
    facts = load("facts", "--count", "2", *STEPS)
    assert [len(rows) for rows in facts.values()] == [2, 300]


def test_a_split_that_is_not_there_is_named(load: Any, tmp_path: Path) -> None:
    write_jsonl(file := tmp_path / "train.jsonl", [{"prompt": "a"}])
    with pytest.raises(ValueError, match=r"--dataset_test_split, .* found the splits train"):
        load(str(tmp_path), *STEPS)
    with pytest.raises(
        ValueError, match=r"a split 'test', found the file .*train\.jsonl, which is"
    ):
        load(str(file), *STEPS)
    with pytest.raises(ValueError, match=r"--dataset_test_split, .* found split 'validation'"):
        load("facts", *STEPS, "--dataset_test_split", "validation")
