"""Reasoning Gym tasks, with a stand-in where the package is not installed."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest

from poise.data import load_questions, reasoning_gym
from poise.data.reasoning_gym import final_answer, load_reasoning_gym, reasoning_gym_reward
from poise.splits import SPLITS


class Sums:
    """A task as Reasoning Gym makes them: entries by index, and a scorer of its own."""

    def __init__(self, size: int, seed: int, largest: int = 999, answered: bool = True):
        if largest < 1:
            raise AssertionError("largest must be positive")
        self.size, self.seed, self.largest, self.answered = size, seed, largest, answered

    def __getitem__(self, index: int) -> dict[str, Any]:
        if not 0 <= index < self.size:
            raise IndexError(index)
        number = (self.seed + index) * 7919 % (self.largest + 1)
        answer = str(number + 1) if self.answered else None
        return {"question": f"{number} + 1 =", "answer": answer, "metadata": {"sum": {number + 1}}}

    def score_answer(self, answer: str | None, entry: dict[str, Any]) -> float:
        if answer is not None and answer.isdigit() and int(answer) in entry["metadata"]["sum"]:
            return 1.0
        return 0.01 if answer else 0.0


@pytest.fixture
def gym(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    package, factory = ModuleType("reasoning_gym"), ModuleType("reasoning_gym.factory")
    factory.DATASETS = {"sums": Sums, "leg_counting": Sums}
    package.create_dataset = lambda name, **options: factory.DATASETS[name](**options)
    package.factory = factory
    monkeypatch.setitem(sys.modules, "reasoning_gym", package)
    monkeypatch.setitem(sys.modules, "reasoning_gym.factory", factory)
    reasoning_gym._pool.cache_clear()
    yield
    reasoning_gym._pool.cache_clear()


@pytest.mark.usefixtures("gym")
def test_rows_hold_prompt_answer_and_where_they_come_from() -> None:
    table = load_reasoning_gym("sums", count=5)
    row = table[0]
    question = row["prompt"][1]["content"]
    assert [turn["role"] for turn in row["prompt"]] == ["system", "user"]
    assert row["answer"] == str(int(question.split()[0]) + 1)
    assert (row["domain"], row["task"], row["task_settings"]) == ("sums", "sums", "{}")
    assert len(set(table["id"])) == 5


@pytest.mark.usefixtures("gym")
def test_a_task_loads_by_name_with_its_settings() -> None:
    table = load_questions("reasoning_gym:sums", "test", count=3, largest=700)
    assert set(table["task_settings"]) == {'{"largest": 700}'} and len(table) == 3


@pytest.mark.usefixtures("gym")
def test_plain_prompts_wait_for_the_answer() -> None:
    (prompt,) = load_reasoning_gym("sums", count=1, style="plain")["prompt"]
    assert prompt.startswith("Question: ") and prompt.endswith(" + 1 =\nAnswer:")


@pytest.mark.usefixtures("gym")
def test_the_tasks_own_scorer_decides() -> None:
    table = load_reasoning_gym("sums", count=3, largest=50)
    columns = {name: table[name] for name in table.column_names if name != "prompt"}
    right = [f"I add.\n<answer>{answer}</answer>" for answer in table["answer"]]
    assert reasoning_gym_reward(right, prompts=[""] * 3, **columns) == [1.0, 1.0, 1.0]
    chat = [[{"role": "assistant", "content": text}] for text in right]
    assert reasoning_gym_reward(chat, **columns) == [1.0, 1.0, 1.0]
    assert reasoning_gym_reward(["Answer: x", " ", "0"], **columns) == [0.01, 0.0, 0.01]


@pytest.mark.usefixtures("gym")
def test_splits_and_seeds_share_no_question_of_another_split() -> None:
    questions = {
        split: {
            prompt[1]["content"]
            for seed in range(3)
            for prompt in load_reasoning_gym("sums", split, count=30, seed=seed)["prompt"]
        }
        for split in SPLITS
    }
    assert not questions["train"] & questions["test"]
    assert not questions["validation"] & (questions["train"] | questions["test"])


@pytest.mark.usefixtures("gym")
def test_tasks_without_a_single_answer_have_no_answer_column() -> None:
    table = load_reasoning_gym("sums", count=3, answered=False)
    assert "answer" not in table.column_names


@pytest.mark.usefixtures("gym")
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"task": "leg_countin"}, r"found 'leg_countin'; did you mean leg_counting\?"),
        ({"task": "zebra"}, r"expected one of its 2 tasks, found 'zebra'$"),
        ({"task": "sums", "smallest": 3}, r"expected settings that the task knows, found .*small"),
        ({"task": "sums", "largest": 0}, r"expected settings .*largest must be positive"),
        ({"task": "sums", "count": 100, "largest": 9}, r"expected 100 different .*lower the count"),
        ({"task": "sums", "split": "dev"}, r"split: expected one of train"),
        ({"task": "sums", "style": "fancy"}, r"style: expected one of"),
    ],
)
def test_bad_arguments_are_named(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load_reasoning_gym(**arguments)


def test_without_the_package_the_error_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "reasoning_gym", None)
    reasoning_gym._pool.cache_clear()
    with pytest.raises(ImportError, match=r"pip install 'poise\[reasoning-gym\]'"):
        load_reasoning_gym("sums")


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("<answer>1</answer> or <answer> 2 </answer>", "2"),
        ("It is 3.\nAnswer: 4", "4"),
        (" 5\n", "5"),
        ("<answer>6", "<answer>6"),
    ],
)
def test_the_answer_is_the_last_that_is_marked(text: str, answer: str) -> None:
    assert final_answer(text) == answer


@pytest.mark.skipif(
    importlib.util.find_spec("reasoning_gym") is None, reason="extra reasoning-gym not installed"
)
def test_the_real_package_scores_its_own_answers() -> None:
    reasoning_gym._pool.cache_clear()
    table = load_reasoning_gym("leg_counting", count=4, max_animals=4)
    columns = {name: table[name] for name in table.column_names if name != "prompt"}
    assert reasoning_gym_reward(list(table["answer"]), **columns) == [1.0] * 4
