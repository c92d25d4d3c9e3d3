"""What the user hands over is checked before anything expensive starts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset, DatasetDict

from poise.isomers.answers import isomer_reward
from poise.models import ModelError
from poise.pgpo.preflight import (
    check_before_loading,
    check_chat_template,
    check_output_folder,
    check_prompt_rows,
    check_templates,
)
from poise.rewards import multiple_choice_reward
from tests.tiny import tiny_dataset, tiny_tokenizer

CHAT = {"prompt": [{"role": "user", "content": "add 1 and 1"}]}


@pytest.mark.parametrize("path", ["file", "file/run"])
def test_a_file_in_the_way_is_named_with_the_argument_to_change(tmp_path: Path, path: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match=rf"output_dir .*{path} cannot be written \(.+\); choose ano"):
        check_output_folder(tmp_path / path)


def test_a_path_that_is_not_a_model_is_refused(
    make_config: Callable[..., Any], tmp_path: Path
) -> None:
    with pytest.raises(ModelError, match=r"no-model"):
        check_before_loading(str(tmp_path / "no-model"), make_config(), tiny_dataset())


def test_a_conversation_needs_a_chat_template() -> None:
    with pytest.raises(ValueError, match=r"tokenizer has no chat template; use an instruction-tun"):
        check_chat_template(CHAT, tiny_tokenizer(chat=False))
    check_chat_template(CHAT, tiny_tokenizer())
    check_chat_template({"prompt": "add 1 and 1"}, tiny_tokenizer(chat=False))


# Rows


def _chat(*roles: str) -> dict[str, Any]:
    return {"prompt": [{"role": role, "content": "so"} for role in roles]}


def _parts(*parts: dict[str, Any]) -> dict[str, Any]:
    return {"prompt": [{"role": "user", "content": list(parts)}]}


GOOD_ROWS: dict[str, list[dict[str, Any]]] = {
    "plain": [{"prompt": "x"}, {"prompt": "y"}],
    "a system's and several turns": [_chat("system", "user"), _chat("user", "assistant", "user")],
    "parts of text": [_parts({"type": "text", "text": "x"})],
    "unicode": [{"prompt": "\u6c34 \u2192 \U0001f4a7"}],
    "a function's columns": [
        {"prompt": "x", "answer": None, "options": ["a", "b"], "image": "a.png"},
        {"prompt": "y", "answer": "forty", "options": [], "image": ""},
    ],
}


@pytest.mark.parametrize("case", GOOD_ROWS)
def test_prompts_that_can_be_trained_on_pass(case: str) -> None:
    check_prompt_rows(GOOD_ROWS[case], "train_dataset")
    check_prompt_rows(Dataset.from_list(GOOD_ROWS[case]), "train_dataset")


BAD_ROWS: dict[str, tuple[list[dict[str, Any]], str]] = {
    "assistant last": (
        [_chat("user"), _chat("user", "assistant")],
        r"row 1: expected a prompt whose last message is the user's, found one of role 'assistant'",
    ),
    "tool last": ([_chat("user", "assistant", "tool")], r"row 0: .* found one of role 'tool'"),
    "system alone": ([_chat("system")], r"row 0: .* found one of role 'system'"),
    "an image": (
        [_parts({"type": "image"}, {"type": "text", "text": "which?"})],
        r"row 0: expected messages of text, found a part of type 'image'; Poise trains on text",
    ),
    "parts without text": (
        [_parts({"type": "text", "text": " "})],
        r"row 0: expected a filled prompt, found a last message without content",
    ),
    "no roles": (
        [{"prompt": [{"from": "user", "value": "x"}]}],
        r"row 0: expected messages with 'role' and 'content', found one with 'from', 'value'",
    ),
    "text and messages": (
        [_chat("user"), {"prompt": "x"}],
        r"row 1: expected prompts that are all text, or all messages",
    ),
    "columns that differ": (
        [{"prompt": "x", "answer": "1"}, {"prompt": "y"}],
        r"row 1: expected the columns of row 0, found prompt; fill in or remove answer",
    ),
    "a column of another's name": (
        [{"prompt": "x", "completions": "y"}],
        r"train_dataset has a column 'completions', .* rename it",
    ),
    "white space": ([{"prompt": "\n\t "}], r"row 0: expected a filled 'prompt'"),
}


@pytest.mark.parametrize("case", BAD_ROWS)
def test_prompts_that_cannot_be_trained_on_are_named(case: str) -> None:
    rows, message = BAD_ROWS[case]
    with pytest.raises(ValueError, match=message):
        check_prompt_rows(rows, "train_dataset")


class _Stream(torch.utils.data.IterableDataset[dict[str, str]]):
    def __iter__(self) -> Any:
        return iter([{"prompt": "x"}])

    def __len__(self) -> int:
        return 1


STREAMS = {
    "datasets": lambda: tiny_dataset().to_iterable_dataset(),
    "torch": _Stream,
    "generator": lambda: iter(tiny_dataset()),
}


@pytest.mark.parametrize("part", ["train_dataset", "eval_dataset"])
@pytest.mark.parametrize("kind", STREAMS)
def test_a_stream_is_refused_by_name(make_config: Callable[..., Any], kind: str, part: str) -> None:
    sets = {"train_dataset": tiny_dataset(), part: STREAMS[kind]()}
    with pytest.raises(TypeError, match=rf"{part} must be a datasets.Dataset, got .* load it whol"):
        check_before_loading("no model", make_config(), **sets)


class _ByIndex(torch.utils.data.Dataset[dict[str, str]]):
    def __getitem__(self, index: int) -> dict[str, str]:
        return {"prompt": f"add 1 and {index}"}  # without an end

    def __len__(self) -> int:
        return 8


def test_rows_that_cannot_be_iterated_over_are_refused(make_config: Callable[..., Any]) -> None:
    with pytest.raises(TypeError, match=r"got _ByIndex, which cannot be iterated.*from_list"):
        check_before_loading("no model", make_config(), _ByIndex())


def test_a_dictionary_of_splits_is_no_train_dataset(make_config: Callable[..., Any]) -> None:
    with pytest.raises(ValueError, match="found DatasetDict"):
        check_before_loading("no model", make_config(), DatasetDict({"train": tiny_dataset()}))


def test_every_evaluation_set_is_checked(make_config: Callable[..., Any]) -> None:
    sets = {"good": tiny_dataset(), "bad": Dataset.from_list([_chat("user", "assistant")])}
    with pytest.raises(ValueError, match="eval_dataset bad, row 0"):
        check_before_loading("no model", make_config(), tiny_dataset(), sets)


class _Counted(list[dict[str, Any]]):
    """Rows that are counted as they are read."""

    read = 0

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for row in super().__iter__():
            self.read += 1
            yield row


def test_rows_are_read_once(make_config: Callable[..., Any], tiny_model_path: str) -> None:
    rows = _Counted(tiny_dataset(50))
    config = make_config(include_environment_feedback=True)
    check_before_loading(tiny_model_path, config, rows)
    assert rows.read == 50 + 1  # the first one tells the columns


# A hint is text


@pytest.mark.parametrize("hint", [3, ["x"]])
def test_a_hint_that_is_no_text_is_named(make_config: Callable[..., Any], hint: Any) -> None:
    config = make_config(include_environment_feedback=True, per_device_train_batch_size=4)
    rows = [
        {"prompt": "x", "privileged_context": None},
        {"prompt": "y", "privileged_context": hint},
    ]
    for dataset in (rows, Dataset.from_list(rows)):
        with pytest.raises(ValueError, match="row 1: expected a 'privileged_context' that is text"):
            check_before_loading("no model", config, dataset)


# The answers are the reward function's


@pytest.mark.parametrize("answer", ["", None, "E", "4"])
def test_a_reward_function_may_check_all_rows(
    make_config: Callable[..., Any], tiny_model_path: str, answer: Any
) -> None:
    rows = [{"prompt": "x", "answer": a, "options": ["1", "2", "3", "4"]} for a in ("A", answer)]
    config = make_config(per_device_train_batch_size=4)
    check_before_loading(tiny_model_path, config, rows, None, [lambda **columns: []])
    with pytest.raises(ValueError, match="row 1: expected an answer among A, B, C, D"):
        check_before_loading("no model", config, rows, None, multiple_choice_reward)
    off = make_config(per_device_train_batch_size=4, check_rewards=False)
    check_before_loading(tiny_model_path, off, rows, None, [multiple_choice_reward])


def test_a_misspelt_column_of_a_reward_function_is_named(make_config: Callable[..., Any]) -> None:
    config = make_config(per_device_train_batch_size=4, eval_strategy="steps")
    good, bad = ([{"prompt": "x", column: "A"}] * 4 for column in ("answer", "anwser"))
    for function in (multiple_choice_reward, isomer_reward):
        with pytest.raises(ValueError, match=r"train_dataset, for .* did you mean 'anwser'"):
            check_before_loading("no model", config, bad, None, function)
    with pytest.raises(ValueError, match=r"eval_dataset, for .* did you mean 'anwser'"):
        check_before_loading("no model", config, good, bad, multiple_choice_reward)
    no_run = make_config(per_device_train_batch_size=4)
    with pytest.raises(ModelError):  # without evaluations it gets as far as the model
        check_before_loading("no model", no_run, good, bad, multiple_choice_reward)
    left_out = make_config(per_device_train_batch_size=4, remove_unused_columns=True)
    with pytest.raises(ValueError, match=r"remove_unused_columns=True\), for .*'answer', found"):
        check_before_loading("no model", left_out, good, None, multiple_choice_reward)


# Batches


def test_fewer_prompts_than_a_batch_are_refused_with_numbers(
    make_config: Callable[..., Any], tiny_model_path: str
) -> None:
    config = make_config(gradient_accumulation_steps=3)  # 8 x 3 rollouts, 4 of a prompt
    with pytest.raises(ValueError, match=r"has 5 prompts, and a generation batch takes 6 .*=24 / "):
        check_before_loading("no model", config, tiny_dataset(5))
    check_before_loading(tiny_model_path, config, tiny_dataset(6), tiny_dataset(1))


def test_rows_that_are_never_drawn_are_told(
    make_config: Callable[..., Any], tiny_model_path: str, caplog: pytest.LogCaptureFixture
) -> None:
    check_before_loading(tiny_model_path, make_config(), tiny_dataset(5))
    assert not caplog.text  # another one is left out in each epoch
    check_before_loading(tiny_model_path, make_config(shuffle_dataset=False), tiny_dataset(5))
    assert "The last 1 of 5 prompts are in no batch of 2" in caplog.text


def test_an_evaluation_that_cuts_groups_is_refused(make_config: Callable[..., Any]) -> None:
    config = make_config(per_device_eval_batch_size=6, eval_on_start=True)
    with pytest.raises(ValueError, match=r"evaluation's batch has 6 rollouts .* whole groups of 4"):
        check_before_loading("no model", config, tiny_dataset(), tiny_dataset())


def test_an_evaluation_that_no_run_makes_is_a_warning(
    make_config: Callable[..., Any], tiny_model_path: str, caplog: pytest.LogCaptureFixture
) -> None:
    config = make_config(per_device_eval_batch_size=6)
    check_before_loading(tiny_model_path, config, tiny_dataset(), tiny_dataset())
    assert "evaluation's batch has 6 rollouts" in caplog.text


# Templates


TEMPLATES: dict[str, tuple[dict[str, Any], str]] = {
    "stray braces": (
        {"solution_template": r"\boxed{answer}: {successful_previous_attempt}"},
        r"solution_template cannot be filled in \(KeyError: 'answer'\); .*braces are doubled",
    ),
    "an open brace": ({"reprompt_template": "{prompt}{solution}{"}, "reprompt_template cannot be"),
    "no question": ({"reprompt_template": "{solution}{feedback}"}, r"lacks \{prompt\}"),
    "no solution": ({"reprompt_template": "{prompt}{feedback}"}, r"lacks \{solution\}"),
    "no feedback": (
        {"reprompt_template": "{prompt}{solution}", "include_environment_feedback": True},
        r"lacks \{feedback\}",
    ),
}


@pytest.mark.parametrize("case", TEMPLATES)
def test_a_template_that_leaves_something_out(case: str, make_config: Callable[..., Any]) -> None:
    settings, message = TEMPLATES[case]
    with pytest.raises(ValueError, match=message):
        check_templates(make_config(**settings))


def test_a_template_needs_no_field_that_is_not_shown(make_config: Callable[..., Any]) -> None:
    check_templates(make_config(reprompt_template="{{}} {prompt}{solution}", feedback_template=""))
