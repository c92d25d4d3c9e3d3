"""Run folders: complete, incomplete, damaged, none."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from poise.evaluate.records import RecordError
from poise.evaluate.runs import RunError, is_run, read_run, read_runs, repetitions

from .run_folders import AFTER, BEFORE, write_iga_run, write_run


def test_a_run_folder_is_read_whole(tmp_path: Path) -> None:
    run = read_run(write_run(tmp_path / "r", steps=5))
    assert run.name == "r"
    assert run.config["config.learning_rate"] == 1e-4
    assert run.config["script.levels"] == [1, 2]
    assert run.versions["poise"] == "0.1.0"
    assert run.last_step == 5
    assert run.before is not None and run.before.questions == tuple(BEFORE)
    assert run.after is not None and run.after.questions == tuple(AFTER)
    assert run.notes == ()


def test_a_series_takes_the_first_key_that_was_logged(tmp_path: Path) -> None:
    run = read_run(write_run(tmp_path / "r", steps=4))
    assert run.series("pgpo/multiplier") == ([1, 2, 3, 4], pytest.approx([1.1, 1.2, 1.3, 1.4]))
    assert run.series("never", "self_distillation/reward_mean")[1] == [0.25, 0.5, 0.75, 1.0]
    assert run.series("never") == ([], [])


def test_a_series_keeps_the_last_value_of_a_step_and_finite_values_only(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "r", steps=1)
    (folder / "metrics.jsonl").write_text(
        '{"step": 1, "x": 1.0}\n{"step": 2, "x": NaN}\n{"step": 3, "x": "text"}\n'
        '{"step": 4, "x": 4}\n{"step": 1, "x": 9.0}\n'
    )
    run = read_run(folder)
    assert run.series("x") == ([1, 4], [9.0, 4.0])
    assert run.notes == (
        f"{folder / 'metrics.jsonl'}: 1 logged values are not finite and are not drawn",
    )


def test_whatever_a_run_lacks_is_empty(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").touch()
    run = read_run(tmp_path)
    assert (run.config, run.versions, run.metrics) == ({}, {}, ())
    assert (run.before, run.after, run.last_step) == (None, None, 0)


def test_a_half_written_last_step_is_left_out_and_reported(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "r", steps=3)
    with (folder / "metrics.jsonl").open("a") as stream:
        stream.write('{"step": 4, "lo')
    run = read_run(folder)
    assert run.last_step == 3
    assert run.notes == (f"{folder / 'metrics.jsonl'}:4: left out, the line is half-written",)


@pytest.mark.parametrize(
    ("line", "complaint"),
    [("{oops", "expected a JSON object"), ('{"loss": 1}', "number 'step'"), ("[]", "'step'")],
)
def test_a_damaged_step_is_named_by_file_and_line(
    tmp_path: Path, line: str, complaint: str
) -> None:
    folder = write_run(tmp_path / "r", steps=3)
    text = (folder / "metrics.jsonl").read_text()
    (folder / "metrics.jsonl").write_text(line + "\n" + text)
    with pytest.raises(RunError, match=rf"metrics\.jsonl:1: .*{complaint}"):
        read_run(folder)


@pytest.mark.parametrize(
    ("name", "text", "complaint"),
    [
        ("config.yaml", "a: [", "expected YAML"),
        ("config.yaml", "- 1", "expected settings by name, found list"),
        ("versions.json", "{oops", "expected a JSON object"),
        ("versions.json", "[]", "expected a JSON object, found list"),
    ],
)
def test_a_damaged_file_is_named(tmp_path: Path, name: str, text: str, complaint: str) -> None:
    folder = write_run(tmp_path / "r")
    (folder / name).write_text(text)
    with pytest.raises(RunError, match=f"{name}: {complaint}"):
        read_run(folder)


def test_a_damaged_evaluation_is_named(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "r")
    (folder / "evaluation" / "after.jsonl").write_text("{oops\n")
    with pytest.raises(RecordError, match=r"after\.jsonl:1: expected a JSON object"):
        read_run(folder)


def test_the_configuration_of_a_model_is_not_that_of_a_run(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama"}))
    assert not is_run(tmp_path)
    (tmp_path / "metrics.jsonl").touch()
    assert read_run(tmp_path).config == {}
    (tmp_path / "config.json").write_text(json.dumps({"config": {"seed": 1}}))
    assert read_run(tmp_path).config == {"config.seed": 1}


def test_what_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"expected a run folder, with metrics\.jsonl.*output_dir"):
        read_run(tmp_path)
    with pytest.raises(FileNotFoundError, match="expected a run folder"):
        read_run(tmp_path / "none")


def test_runs_of_one_name_are_told_apart(tmp_path: Path) -> None:
    runs = read_runs([write_run(tmp_path / parent / "r") for parent in ("a", "b")])
    assert [run.name for run in runs] == ["a/r", "b/r"]


def test_a_run_that_is_given_twice_is_refused(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "r")
    with pytest.raises(RunError, match="given twice"):
        read_runs([folder, folder / ".." / "r"])


def settings(seed: int, **others: object) -> dict[str, object]:
    return {"config.seed": seed, "config.output_dir": f"runs/{seed}", "config.rate": 1.0} | others


def test_runs_that_differ_in_seeds_and_names_alone_repeat_one_setting() -> None:
    runs = [settings(0), settings(7, **{"config.rate": 2.0}), settings(1), settings(2)]
    assert repetitions(runs) == [[0, 2, 3]]
    assert repetitions(runs[:3]) == []
    assert repetitions(runs, least=1) == [[0, 2, 3], [1]]
    other = [settings(0, **{"config.rate": 3.0, "script.question_seed": i}) for i in range(3)]
    assert repetitions([*runs, *other]) == [[0, 2, 3], [4, 5, 6]]


def test_a_run_that_was_made_twice_counts_once() -> None:
    again = settings(0, **{"config.output_dir": "elsewhere"})
    assert repetitions([settings(0), again, settings(1)]) == []
    assert repetitions([settings(0), again, settings(1), settings(2)]) == [[0, 2, 3]]


def test_layers_and_representations_are_read(tmp_path: Path) -> None:
    run = read_run(write_iga_run(tmp_path / "r", steps=3))
    assert [step.step for step in run.layers] == [1, 2, 3]
    assert run.layers[0].layers["model.layers.1.attn.q_proj"]["mask_mean"] == 0.5
    assert all(found is not None and len(found.places) == 48 for found in run.representations)
    assert run.methods == {"iga"}
    bare = read_run(write_run(tmp_path / "bare"))
    assert bare.layers == () and bare.representations == (None, None)
    assert bare.methods == {"pgpo", "self_distillation", "completions"}


def test_damaged_layers_are_named_and_values_that_are_not_finite_left_out(tmp_path: Path) -> None:
    folder = write_iga_run(tmp_path / "r", steps=0)
    file = folder / "layers.jsonl"
    file.write_text('{"step": 1, "layers": {"q": {"mask_mean": NaN, "agreement": 0.5}}}\n{"st')
    run = read_run(folder)
    assert run.layers[0].layers == {"q": {"agreement": 0.5}}
    assert run.notes == (f"{file}:2: left out, the line is half-written",)
    for line in ('{"step": 1}', '{"step": 1, "layers": {"q": 1}}'):
        file.write_text(line + "\n")
        with pytest.raises(RunError, match=r"layers.jsonl:1: expected 'layers'"):
            read_run(folder)
