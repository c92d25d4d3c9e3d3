"""Settings of `poise eval`: from flags, from a file, from the runs."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import yaml
from tokenizers import decoders

from poise.cli.eval_arguments import EvalArguments
from poise.cli.main import main
from poise.evaluate.records import read_records
from poise.evaluate.runs import read_run
from tests.tiny import save_tiny_model, tiny_tokenizer
from tests.unit.cli.conftest import save_letter_adapter

from .conftest import Call, ask


def test_the_questions_are_those_of_the_run_unless_named(call: Call, run_path: Path) -> None:
    script = {"dataset": "science:chemistry", "style": "plain", "question_seed": 4}
    (run_path / "config.yaml").write_text(yaml.safe_dump({"script": script}))
    found = ask(call, "--compare", run_path, "--limit", "6")
    assert found["dataset"] == "science:chemistry"
    assert found["selection"] == {
        "style": "plain",
        "seed": 4,
        "count": 200,
        "limit": 6,
    }
    run = read_run(run_path)
    assert run.after is not None
    assert {q.domain for q in run.after.questions} == {"chemistry"}
    named = ask(
        call, "--compare", run_path, "--dataset", "science", "--questions", "8", "--overwrite"
    )
    assert named["selection"] == {"count": 8}
    assert named["evaluations"][0]["questions"] == 8


def test_models_think_as_in_training_unless_told_otherwise(
    call: Call, questions_path: Path, run_path: Path
) -> None:
    def asked(*words: str | Path) -> Any:
        words = ("--compare", run_path, "--dataset", questions_path, "--overwrite", *words)
        return ask(call, *words)["sampling"]["chat_template_kwargs"]

    assert asked() == {"enable_thinking": False}
    assert asked("--thinking") == {"enable_thinking": True}
    trained = {"chat_template_kwargs": {"enable_thinking": True, "hint": "x"}}
    (run_path / "config.yaml").write_text(yaml.safe_dump({"config": trained}))
    assert asked() == {"enable_thinking": True, "hint": "x"}
    assert asked("--thinking", "false") == {"enable_thinking": False, "hint": "x"}


def test_runs_that_were_prompted_differently_are_compared_one_by_one(
    call: Call, letters_path: str, questions_path: Path, run_path: Path, tmp_path: Path
) -> None:
    other = save_letter_adapter(tmp_path / "other", letters_path, seed=2)
    (other / "metrics.jsonl").touch()
    trained = {"chat_template_kwargs": {"enable_thinking": True}}
    (other / "config.yaml").write_text(yaml.safe_dump({"config": trained}))
    words = ("--compare", run_path, other, "--dataset", questions_path)
    status, _, err = call(*words)
    assert status == 2 and "different chat_template_kwargs" in err
    assert len(ask(call, *words, "--thinking", "false")["evaluations"]) == 3


def test_a_completion_may_end_with_its_line(call: Call, tmp_path: Path) -> None:
    folder = Path(save_tiny_model(tmp_path / "tiny"))
    tokenizer = tiny_tokenizer()
    tokenizer.backend_tokenizer.decoder = decoders.Fuse()
    tokenizer.save_pretrained(folder)
    (tmp_path / "q.jsonl").write_text('{"id": "q", "prompt": "q:", "answer": "A"}\n')
    words = ("--model", folder, "--dataset", "q.jsonl", "--k", "64", "--max_new_tokens", "8")
    ask(call, *words, "--output_dir", "free")
    found = ask(call, *words, "--output_dir", "cut", "--stop", "\\n")
    assert found["sampling"]["stop"] == ["\n"]
    free, cut = (
        read_records(tmp_path / name / "tiny.jsonl").questions[0].completions
        for name in ("free", "cut")
    )
    assert any("\n" in text for text in free)
    assert not any("\n" in text for text in cut)


def test_a_limit_is_spread_evenly(
    call: Call, letters_path: str, questions_path: Path, tmp_path: Path
) -> None:
    ask(call, "--model", letters_path, "--dataset", questions_path, "--limit", "4")
    records = read_records(tmp_path / "evaluations" / "base.jsonl")
    assert {q.id for q in records.questions} == {"q0", "q3", "q6", "q9"}


def test_temperature_zero_takes_one_sample(
    call: Call, letters_path: str, questions_path: Path
) -> None:
    words = ("--model", letters_path, "--dataset", questions_path, "--temperature", "0")
    status, out, err = call(*words, "--json")
    assert status == 0 and "so k is 1" in err
    (evaluation,) = json.loads(out)["evaluations"]
    assert evaluation["k"] == 1
    assert evaluation["average"]["method"] == "wilson"


def test_settings_may_stand_in_a_file_and_flags_override_them(
    call: Call, letters_path: str, questions_path: Path, tmp_path: Path
) -> None:
    settings = {"model": letters_path, "dataset": str(questions_path), "seed": 3, "limit": 2}
    (tmp_path / "x.yaml").write_text(yaml.safe_dump(settings))
    found = ask(call, "--config", tmp_path / "x.yaml", "--limit", "3")
    assert (found["seed"], found["selection"]) == (3, {"limit": 3})


def test_help_explains_every_flag(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["eval", "--help"])
    assert stop.value.code == 0
    printed = capsys.readouterr().out
    assert "95 % intervals" in printed
    assert all(f"--{field.name} " in printed for field in fields(EvalArguments))
