"""Run folders: complete, incomplete, damaged, none."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from poise.evaluate.records import RecordError
from poise.evaluate.runs import read_config, read_run, read_runs

from .constructed import AFTER, BEFORE, write_iga_run, write_run


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


@pytest.mark.parametrize(
    ("line", "complaint"),
    [("{oops", "expected a JSON object"), ('{"loss": 1}', "number 'step'"), ("[]", "found list")],
)
def test_a_damaged_step_is_named_by_file_and_line(
    tmp_path: Path, line: str, complaint: str
) -> None:
    folder = write_run(tmp_path / "r", steps=3)
    text = (folder / "metrics.jsonl").read_text()
    (folder / "metrics.jsonl").write_text(line + "\n" + text)
    with pytest.raises(RecordError, match=rf"metrics\.jsonl:1: .*{complaint}"):
        read_run(folder)


@pytest.mark.parametrize(
    ("name", "text", "complaint"),
    [
        ("config.yaml", "a: [", "expected YAML"),
        ("config.yaml", "- 1", "expected settings by name, found list"),
        ("versions.json", "{oops", "expected a JSON object"),
        ("versions.json", "[]", "expected a JSON object, found list"),
        ("evaluation/after.jsonl", "{oops\n", "expected a JSON object"),
    ],
)
def test_a_damaged_file_is_named(tmp_path: Path, name: str, text: str, complaint: str) -> None:
    folder = write_run(tmp_path / "r")
    (folder / name).write_text(text)
    with pytest.raises(RecordError, match=f"{name}(:1)?: {complaint}"):
        read_run(folder)


def test_what_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match=r"a run folder, with metrics\.jsonl.*output_dir"):
        read_run(tmp_path)
    with pytest.raises(FileNotFoundError, match="expected a run folder"):
        read_run(tmp_path / "none")
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama"}))
    with pytest.raises(RecordError, match="expected a run folder"):
        read_run(tmp_path)


def test_runs_of_one_name_are_told_apart(tmp_path: Path) -> None:
    runs = read_runs([write_run(tmp_path / parent / "r") for parent in ("a", "b")])
    assert [run.name for run in runs] == ["a/r", "b/r"]
    folder = tmp_path / "a" / "r"
    with pytest.raises(RecordError, match="given twice"):
        read_runs([folder, folder / ".." / "r"])


def test_settings_of_0_1_are_read_under_their_names_of_today(tmp_path: Path) -> None:
    old = {
        "script": {"dataset": "facts", "split": "train", "questions": None},
        "config": {"domains": ["law"], "space": "factor", "method_options": {"a": 1}},
    }
    new = {
        "script": {"dataset_name": "facts", "dataset_train_split": "train", "count": None},
        "config": {
            **{"domains": None, "iga_domains": ["law"], "iga_space": "factor"},
            "iga_method_options": {"a": 1},
        },
    }
    found = []
    for config in (old, new):
        (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
        found.append(read_config(tmp_path))
    assert found[0] == found[1] and found[0]["config.iga_domains"] == ["law"]
    assert read_config(None) == read_config(tmp_path / "none") == {}


def test_layers_and_representations_are_read(tmp_path: Path) -> None:
    run = read_run(write_iga_run(tmp_path / "r", steps=3))
    assert len(run.layers) == 3
    assert run.layers[0]["model.layers.1.attn.q_proj"]["mask_mean"] == 0.5
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
    assert run.layers[0] == {"q": {"agreement": 0.5}}
    assert run.notes == (f"{file}:2: left out, the line is half-written",)
    for line in ('{"step": 1}', '{"step": 1, "layers": {"q": 1}}'):
        file.write_text(line + "\n")
        with pytest.raises(RecordError, match=r"layers.jsonl:1: expected 'layers'"):
            read_run(folder)
