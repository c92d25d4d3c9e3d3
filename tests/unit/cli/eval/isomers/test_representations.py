"""`poise eval` on logical isomers keeps representations with the records."""

from __future__ import annotations

from pathlib import Path

from tests.unit.cli.eval.conftest import Call, ask


def test_representations_are_not_made_again_unless_asked(
    call: Call, letters_path: str, isomers_path: Path, tmp_path: Path
) -> None:
    words = ("--model", letters_path, "--dataset_name", isomers_path)
    first = ask(call, *words)
    file = tmp_path / "evaluations" / "base.representations.safetensors"
    stamp = file.stat().st_mtime_ns
    assert ask(call, *words) == first
    assert file.stat().st_mtime_ns == stamp
    status, _, err = call(*words, "--layer", "0")
    assert status == 2 and "'layer': 0" in err and "--overwrite" in err
    again = ask(call, *words, "--layer", "0", "--overwrite")["evaluations"][0]
    assert again["representations"]["layer"] == 0
    assert again["tests"]["deeper"]["consistency"] != first["evaluations"][0]["tests"]["deeper"]


def test_the_center_is_chosen_without_reading_the_model_again(
    call: Call, letters_path: str, isomers_path: Path
) -> None:
    words = ("--model", letters_path, "--dataset_name", isomers_path)
    scores = {
        center: ask(call, *words, "--center", center)["evaluations"][0]["consistency"]["score"]
        for center in ("mean", "standard", "none")
    }
    assert len({score["mean"] for score in scores.values()}) == 3


def test_representations_may_be_left_out(
    call: Call, letters_path: str, isomers_path: Path, tmp_path: Path
) -> None:
    words = ("--model", letters_path, "--dataset_name", isomers_path, "--consistency", "false")
    (evaluation,) = ask(call, *words)["evaluations"]
    assert evaluation["consistency"] is None and evaluation["representations"] is None
    assert evaluation["tests"]["deeper"]["consistency"] is None
    assert evaluation["disagreement"]["sets"] == 9
    assert [f.name for f in (tmp_path / "evaluations").iterdir()] == ["base.jsonl"]
    assert "Consistency Score" not in call(*words)[1]
