"""`poise eval` from the command line, with a tiny model that answers letters."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from poise.evaluate.measures import average
from poise.evaluate.records import read_records
from poise.evaluate.runs import read_run
from poise.evaluate.measures import compare
from tests.unit.cli.conftest import letter_model, letter_tokenizer, save_letter_adapter

from .conftest import Call, ask


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
        "dtype": "float32",
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
    assert difference["p_value"] == expected.p_value


def test_several_runs_are_compared_with_one_model(
    call: Call, letters_path: str, questions_path: Path, run_path: Path, tmp_path: Path
) -> None:
    other = save_letter_adapter(tmp_path / "other" / "run", letters_path, seed=2)
    (other / "metrics.jsonl").touch()
    found = ask(call, "--compare", run_path, other, "--dataset_name", questions_path)
    assert [e["name"] for e in found["evaluations"]] == ["before", "run-1", "run-2"]
    first, second = read_run(run_path), read_run(other)
    assert first.before == second.before and first.before is not None
    assert first.after != second.after
    assert len(found["differences"]) == 2


def test_models_and_adapters_without_a_run_are_kept_in_the_output_folder(
    call: Call, letters_path: str, questions_path: Path, run_path: Path, tmp_path: Path
) -> None:
    found = ask(
        call,
        *("--model", letters_path, "--adapter", run_path, "--dataset_name", questions_path),
        *("--compare", letters_path, "--output_dir", "kept"),
    )
    assert [e["adapter"] for e in found["evaluations"]] == [str(run_path), None]
    assert {file.name for file in (tmp_path / "kept").iterdir()} == {"before.jsonl", "after.jsonl"}


def test_tables_show_accuracy_domains_and_the_difference(
    call: Call, questions_path: Path, run_path: Path
) -> None:
    status, out, _ = call("--compare", run_path, "--dataset_name", questions_path)
    assert status == 0
    for text in ("avg@4", "pass@4", "answer found", "before", "after", "biology", "physics"):
        assert text in out
    assert "after - before:" in out and "percentage points" in out
    assert "12 questions" in out and "after.jsonl" in out


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


def test_runs_with_three_seeds_are_taken_together(
    call: Call, letters_path: str, questions_path: Path, tmp_path: Path
) -> None:
    runs = [save_letter_adapter(tmp_path / f"s{seed}", letters_path, seed) for seed in range(1, 4)]
    for seed, run in enumerate(runs):
        (run / "metrics.jsonl").touch()
        (run / "config.yaml").write_text(yaml.safe_dump({"config": {"seed": seed, "rate": 1.0}}))
    words = ("--dataset_name", questions_path, "--compare", *runs)
    found = ask(call, *words)
    (group,) = found["over_runs"]
    assert group["runs"] == ["s1", "s2", "s3"]
    means = [difference["interval"]["mean"] for difference in found["differences"]]
    assert group["interval"]["mean"] == pytest.approx(sum(means) / 3)
    assert group["interval"]["low"] < min(means) < max(means) < group["interval"]["high"]
    assert "Mean of 3 runs that differ in their seeds" in call(*words)[1]
    assert ask(call, *words[:-1])["over_runs"] == []


def test_a_run_that_was_trained_further_is_not_mixed_with_its_past(
    call: Call, letters_path: str, questions_path: Path, run_path: Path
) -> None:
    ask(call, "--compare", run_path, "--dataset_name", questions_path)
    save_letter_adapter(run_path, letters_path, seed=5)
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
