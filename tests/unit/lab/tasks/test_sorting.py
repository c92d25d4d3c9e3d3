"""The toy task of sorting: its problems, its split, and what a model can copy from."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from lab.tasks import sorting
from poise.demo.tiny_model import IGNORED, encode, make_tokenizer


def test_training_and_tests_have_no_prompt_in_common() -> None:
    train = {row["prompt"] for row in sorting.problems(800, 1, "train")}
    test = {row["prompt"] for row in sorting.problems(200, 1, "test")}
    assert len(train) == 800 and len(test) == 200
    assert not train & test
    assert not train & {row["prompt"] for row in sorting.problems(200, 2, "test")}


def test_an_answer_is_the_sorted_list() -> None:
    for row in sorting.problems(50, 1, "test"):
        digits = row["prompt"].split()[1:-1]
        assert len(set(digits)) == sorting.LENGTH
        assert row["answer"].split() == sorted(digits)


@pytest.mark.parametrize(("copies", "six"), [(False, 0.0), (True, 0.02)])
def test_a_shown_solution_is_copied_and_not_sorted(copies: bool, six: float) -> None:
    lessons = sorting._Lessons(make_tokenizer([*"0123456789", "S", "Q", "="]), 1)
    lessons._copies = copies
    rows = [lessons._row() for _ in range(3000)]
    shown = [(p, c) for p, c in rows if p.startswith(sorting.SOLUTION)]
    asked = [(p, c) for p, c in rows if not p.startswith(sorting.SOLUTION)]
    assert len(shown) / len(rows) == pytest.approx(sorting.COPYING, abs=0.04)
    assert all(p.split()[1 : 1 + sorting.LENGTH] == c.split() for p, c in shown)
    assert sum(c.split() == sorted(c.split()) for _, c in shown) < 10
    assert all(sorted(p.split()[1:-1]) == c.split() for p, c in asked)
    long = sum(len(c.split()) == sorting.LENGTH for _, c in asked)
    assert long / len(rows) == pytest.approx(six, abs=0.008)


def test_the_teachers_prompt_has_the_form_that_copying_was_learned_in() -> None:
    solution = sorting.TEMPLATES["solution_template"].format(successful_previous_attempt="1 2 3")
    prompt = sorting.TEMPLATES["reprompt_template"].format(
        solution=solution, feedback="", prompt="Q 3 1 2 ="
    )
    assert prompt == "S 1 2 3 Q 3 1 2 ="


def test_the_loss_is_on_the_completion_and_its_end() -> None:
    tokenizer = make_tokenizer(["x", "y"])
    ids, labels = encode(tokenizer, [("x y", "y"), ("x", "y")])
    pad, end = tokenizer.pad_token_id, tokenizer.eos_token_id
    x, y = tokenizer.convert_tokens_to_ids(["x", "y"])
    assert ids.tolist() == [[x, y, y, end], [x, y, end, pad]]
    assert labels.tolist() == [[IGNORED, IGNORED, y, end], [IGNORED, y, end, IGNORED]]


@pytest.mark.slow
def test_a_model_is_trained_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POISE_CACHE", str(tmp_path))
    monkeypatch.setattr(sorting, "STEPS", 25)
    folder = sorting.model_folder(3)
    written = (Path(folder) / "model.safetensors").stat().st_mtime_ns
    assert sorting.model_folder(3) == folder
    assert (Path(folder) / "model.safetensors").stat().st_mtime_ns == written
    assert [path.name for path in tmp_path.iterdir()] == [Path(folder).name]
    model, tokenizer = (
        AutoModelForCausalLM.from_pretrained(folder),
        AutoTokenizer.from_pretrained(folder),
    )
    ids, labels = encode(tokenizer, [("Q 2 1 =", "1 2")] * 4)
    with torch.no_grad():
        loss = model(input_ids=ids, labels=labels).loss
    assert loss < 2.3  # 2.7 nats before any training: fifteen tokens, each as likely
