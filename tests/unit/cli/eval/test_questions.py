"""`poise eval` from the command line, with a tiny model that answers letters."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import yaml
from tokenizers import decoders

from poise.cli.eval import EvalArguments
from poise.cli.main import main
from poise.evaluate.measures import average, compare
from poise.evaluate.records import beside, read_records
from poise.evaluate.runs import AFTER, read_run
from poise.precision import pick_dtype
from tests.tiny import save_adapter, save_tiny_model, tiny_tokenizer
from tests.unit.cli.conftest import letter_model, letter_tokenizer

from .conftest import Call, ask
from .test_isomers import isomer_rows


def test_one_model_is_evaluated(
    call: Call, letters_path: str, questions_path: Path, tmp_path: Path
) -> None:
    found = ask(call, "--model", letters_path, "--dataset_name", questions_path)
    (evaluation,) = found["evaluations"]
    records = read_records(tmp_path / "evaluations" / "base.jsonl")
    assert evaluation["records"] == ["evaluations/base.jsonl"]
    assert (evaluation["questions"], evaluation["k"]) == (12, 4)
    expected = sum(average(q) for q in records.questions) / 12
    assert evaluation["average"]["mean"] == pytest.approx(expected)
    assert 0.0 < expected < 1.0
    assert evaluation["average"]["low"] < expected < evaluation["average"]["high"]
    assert found["sampling"] == {
        "k": 4,
        "temperature": 1.0,
        "top_p": 0.95,
        "max_new_tokens": 3,
        "stop": [],
        "chat_template_kwargs": {"enable_thinking": False},
        "dtype": str(pick_dtype()).removeprefix("torch."),
        "batch_size": 64,
    }
    assert found["differences"] == []
    assert set(records.header.versions) >= {"poise", "torch", "transformers"}


def test_before_and_after_come_from_one_call_and_stay_in_the_run(
    call: Call, letters_path: str, questions_path: Path, run_path: Path
) -> None:
    found = ask(call, "--compare", run_path, "--dataset_name", questions_path)
    before, after = found["evaluations"]
    assert (before["model"], before["adapter"]) == (letters_path, None)
    assert (after["model"], after["adapter"]) == (letters_path, str(run_path))
    run = read_run(run_path)
    assert run.before is not None and run.after is not None
    (difference,) = found["differences"]
    expected = compare(run.before.questions, run.after.questions)
    assert (difference["from"], difference["to"]) == ("before", "after")
    assert difference["interval"]["mean"] == expected.interval.mean
    assert run.before.questions != run.after.questions
    assert not any("tests" in one for one in (before, after, difference))
    assert difference["p_value"] == expected.p_value
    status, out, _ = call("--compare", run_path, "--dataset_name", questions_path)
    assert status == 0
    for text in ("avg@4", "pass@4", "answer found", "before", "after", "biology", "physics"):
        assert text in out
    assert "after - before:" in out and "percentage points" in out
    assert "12 questions" in out and "after.jsonl" in out


def test_several_runs_are_compared_with_one_model(
    call: Call, letters_path: str, questions_path: Path, run_path: Path, tmp_path: Path
) -> None:
    other = save_adapter(letters_path, tmp_path / "other" / "run", seed=2)
    (other / "metrics.jsonl").touch()
    found = ask(call, "--compare", run_path, other, "--dataset_name", questions_path)
    assert [e["name"] for e in found["evaluations"]] == ["before", "run-1", "run-2"]
    first, second = read_run(run_path), read_run(other)
    assert first.before == second.before and first.before is not None
    assert first.after != second.after
    assert len(found["differences"]) == 2
    # Without a run they are kept in the output folder.
    words = ("--model", letters_path, "--adapter", run_path, "--dataset_name", questions_path)
    found = ask(call, *words, "--compare", letters_path, "--output_dir", "kept")
    assert [e["adapter"] for e in found["evaluations"]] == [str(run_path), None]
    assert {file.name for file in (tmp_path / "kept").iterdir()} == {"before.jsonl", "after.jsonl"}


def test_an_evaluation_that_is_there_is_not_made_again_unless_asked(
    call: Call, letters_path: str, questions_path: Path, tmp_path: Path
) -> None:
    words = ("--model", letters_path, "--dataset_name", questions_path)
    first = ask(call, *words)
    file = tmp_path / "evaluations" / "base.jsonl"
    stamp = file.stat().st_mtime_ns, file.read_bytes()
    assert ask(call, *words) == first
    assert (file.stat().st_mtime_ns, file.read_bytes()) == stamp
    status, _, err = call(*words, "--seed", "9")
    assert status == 2 and "'seed': 9" in err and "--overwrite" in err
    assert ask(call, *words, "--seed", "9", "--overwrite")["seed"] == 9


def test_a_run_that_was_trained_further_is_not_mixed_with_its_past(
    call: Call, letters_path: str, questions_path: Path, run_path: Path
) -> None:
    ask(call, "--compare", run_path, "--dataset_name", questions_path)
    save_adapter(letters_path, run_path, seed=5)
    status, _, err = call("--compare", run_path, "--dataset_name", questions_path)
    assert status == 2 and "weights" in err and "after.jsonl" in err


def test_a_fully_trained_model_is_compared_with_what_it_started_from(
    call: Call, letters_path: str, questions_path: Path, tmp_path: Path
) -> None:
    run = tmp_path / "full"
    letter_model(seed=7).save_pretrained(run)
    letter_tokenizer().save_pretrained(run)
    (run / "metrics.jsonl").touch()
    (run / "config.yaml").write_text(
        yaml.safe_dump({"model": {"model_name_or_path": letters_path}})
    )
    before, after = ask(call, "--compare", run, "--dataset_name", questions_path)["evaluations"]
    assert (before["model"], after["model"]) == (letters_path, str(run))
    assert before["average"] != after["average"]


def test_the_questions_are_those_of_the_run_unless_named(
    call: Call, questions_path: Path, run_path: Path
) -> None:
    script = {"dataset_name": "facts", "question_seed": 4}
    (run_path / "config.yaml").write_text(yaml.safe_dump({"script": script}))
    found = ask(call, "--compare", run_path, "--limit", "6")
    assert (found["dataset"], found["selection"]) == ("facts", {"seed": 4, "limit": 6})
    named = ("--dataset_name", questions_path, "--count", "8", "--overwrite")
    found = ask(call, "--compare", run_path, *named)
    assert found["selection"] == {"count": 8}
    assert found["evaluations"][0]["questions"] == 8


def test_the_file_of_the_training_is_no_test(
    call: Call, questions_path: Path, run_path: Path
) -> None:
    script = {"dataset_name": str(questions_path)}
    (run_path / "config.yaml").write_text(yaml.safe_dump({"script": script}))
    _, _, said = call("--compare", run_path, "--limit", "2")
    assert "are the questions that were trained on" in said


def test_a_completion_may_end_with_its_line(call: Call, tmp_path: Path) -> None:
    folder = Path(save_tiny_model(tmp_path / "tiny"))
    tokenizer = tiny_tokenizer()
    tokenizer.backend_tokenizer.decoder = decoders.Fuse()
    tokenizer.save_pretrained(folder)
    (tmp_path / "q.jsonl").write_text('{"id": "q", "prompt": "q:", "answer": "A"}\n')
    words = ("--model", folder, "--dataset_name", "q.jsonl", "--k", "64", "--max_new_tokens", "8")
    found = ask(call, *words, "--output_dir", "cut", "--stop", "\\n")
    assert found["sampling"]["stop"] == ["\n"]
    (record,) = read_records(tmp_path / "cut" / "tiny.jsonl").questions
    assert any(n < 8 for n in record.lengths) and not any("\n" in x for x in record.completions)


def test_temperature_zero_takes_one_sample(
    call: Call, letters_path: str, questions_path: Path
) -> None:
    words = ("--model", letters_path, "--dataset_name", questions_path, "--temperature", "0")
    status, out, err = call(*words, "--thinking", "--json")
    assert status == 0 and "so k is 1" in err
    found = json.loads(out)
    (evaluation,) = found["evaluations"]
    assert found["sampling"]["chat_template_kwargs"] == {"enable_thinking": True}
    assert evaluation["k"] == 1
    assert evaluation["average"]["method"] == "wilson"


def test_help_explains_every_flag(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["eval", "--help"])
    assert stop.value.code == 0
    printed = capsys.readouterr().out
    assert "95 % intervals" in printed
    assert all(f"--{field.name} " in printed for field in fields(EvalArguments))


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["--model", "no/such/model/here"], "Expected a model"),
        (["--adapter", "nowhere"], "expected a folder with adapter_config.json at nowhere"),
        (["--dataset_name", "none.jsonl"], "none.jsonl"),
        (["--k", "0"], "k: expected a whole number"),
        (["--limit", "0"], "limit: expected 1 or more"),
        (["--batch_size", "0"], "batch_size: expected 1 or more"),
        (["--dtype", "int4"], "dtype: expected one of"),
        (["--max_new_tokens", "512"], "lower max_new_tokens"),
        (["--tempratur", "1"], "did you mean --temperature?"),
    ],
)
def test_a_mistake_is_one_line(
    call: Call, letters_path: str, questions_path: Path, words: list[str], complaint: str
) -> None:
    status, out, err = call("--model", letters_path, "--dataset_name", questions_path, *words)
    assert status == 2 and out == ""
    last = err.strip().splitlines()[-1]
    assert last.startswith("poise eval: ") and complaint in last


def test_a_compared_model_that_is_not_there_is_found_out_before_any_is_asked(
    call: Call, letters_path: str, questions_path: Path, tmp_path: Path
) -> None:
    folder, other = tmp_path / "records", "org/no-such-model"
    words = ("--model", letters_path, "--dataset_name", questions_path, "--compare", other)
    status, _, err = call(*words, "--output_dir", folder)
    assert status == 2 and other in err.strip().splitlines()[-1]
    assert not folder.exists()


@pytest.mark.parametrize(
    ("spoil", "complaint"),
    [
        (lambda file: file.write_text('{"format": "another"}\n'), "found 'another'"),
        (lambda file: file.write_text(file.read_text().replace("C D", "A B")), "another prompt"),
        (lambda file: beside(file).write_bytes(b"vectors"), "damaged representations"),
    ],
)
def test_records_of_another_kind_are_found_out_before_a_model_is_loaded(
    call: Call,
    letters_path: str,
    run_path: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    spoil: Callable[[Path], Any],
    complaint: str,
) -> None:
    (tmp_path / "q.jsonl").write_text("".join(json.dumps(row) + "\n" for row in isomer_rows()))
    words = ("--model", letters_path, "--compare", run_path, "--dataset_name", "q.jsonl")
    ask(call, *words)
    spoil(run_path / AFTER)
    monkeypatch.setattr("poise.evaluate.load.load", None)  # to call it would fail
    status, out, err = call(*words)
    last = err.strip().splitlines()[-1]
    assert (status, out) == (2, "") and "after" in last and complaint in last


def test_adapters_of_different_models_need_the_model_named(
    call: Call, letters_path: str, questions_path: Path, run_path: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other_base"
    letter_model(seed=3).save_pretrained(other)
    letter_tokenizer().save_pretrained(other)
    second = save_adapter(str(other), tmp_path / "second", seed=1)
    words = ("--compare", run_path, second, "--dataset_name", questions_path)
    status, _, err = call(*words)
    assert status == 2 and "different models" in err and "--model" in err
    assert len(ask(call, *words, "--model", letters_path)["evaluations"]) == 3


def test_questions_without_an_answer_are_refused_before_anything_is_lost(
    call: Call, run_path: Path, questions_path: Path, tmp_path: Path
) -> None:
    ask(call, "--compare", run_path, "--dataset_name", questions_path)
    kept = {file: file.read_bytes() for file in run_path.rglob("*.jsonl")}
    other = tmp_path / "mine.jsonl"
    other.write_text('{"prompt": "1 + 1 ="}\n')
    status, _, err = call("--compare", run_path, "--dataset_name", other, "--overwrite")
    assert status == 2 and "row 0: expected the right letter in a column 'answer'" in err
    assert {file: file.read_bytes() for file in run_path.rglob("*.jsonl")} == kept
