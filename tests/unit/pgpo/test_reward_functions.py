"""What a reward function returns is taken apart, or refused with one clear error."""

from __future__ import annotations

import functools
import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from poise.pgpo.rollouts import (
    TextReward,
    advantages,
    are_level,
    reward_figures,
    split_rewards,
    success_threshold,
)


@pytest.mark.parametrize("pair", [(0.5, "too long"), [0.5, "too long"]])
def test_a_pair_is_a_reward_and_a_text(pair: Any) -> None:
    assert split_rewards("f", [pair], 1) == ([0.5], ["too long"])


def test_either_part_of_a_pair_may_be_missing() -> None:
    found = split_rewards("f", [(None, "no answer"), (1.0, None), (None, None), 0.0], 4)
    assert found == ([None, 1.0, None, 0.0], ["no answer", None, None, None])


@pytest.mark.parametrize(
    "output",
    [
        (0.25, 1.0),
        np.array([0.25, 1.0]),
        torch.tensor([0.25, 1.0], requires_grad=True),
        torch.tensor([0.25, 1.0], dtype=torch.bfloat16),
        [np.float32(0.25), np.int64(1)],
        [torch.tensor(0.25), torch.tensor([1.0])],
        np.array([0.25, 1.0], dtype=object),
    ],
    ids=lambda output: f"{type(output).__name__}",
)
def test_arrays_and_their_numbers_are_numbers(output: Any) -> None:
    rewards, texts = split_rewards("f", output, 2)
    assert rewards == [0.25, 1.0]
    assert all(type(reward) is float for reward in rewards)
    assert texts == [None, None]


def test_a_reward_that_is_not_a_number_passes_as_the_hosts_no_opinion() -> None:
    ((reward,), _) = split_rewards("f", [math.nan], 1)
    assert reward is not None and math.isnan(reward)


def test_a_reward_that_is_not_a_number_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    scores: Any = iter([[0.0, None], [math.nan, 1.0], [math.nan, math.nan]])
    reward = TextReward(lambda prompts, completions: next(scores), lambda texts: None)
    for warnings in (0, 1, 1):
        reward(["p", "q"], ["a", "b"])
        assert caplog.text.count("'<lambda>' returned nan, which counts as None") == warnings


@pytest.mark.parametrize(("output", "got"), [([], 0), ([1.0] * 3, 3), (torch.zeros(3), 3)])
def test_another_length_is_refused(output: list[float], got: int) -> None:
    message = rf"'f' must return one entry per completion, expected 2, got {got}"
    with pytest.raises(ValueError, match=message):
        split_rewards("f", output, 2)


@pytest.mark.parametrize(
    ("output", "got"),
    [
        (None, "NoneType"),
        ("10", "str"),
        ({"a": 1.0, "b": 2.0}, "dict"),
        ((r for r in (1.0, 2.0)), "generator"),
        (torch.tensor(1.0), "float"),
    ],
)
def test_what_is_not_a_list_is_refused(output: Any, got: str) -> None:
    message = rf"reward function 'f' must return a list with one entry per completion, got {got}"
    with pytest.raises(TypeError, match=message):
        split_rewards("f", output, 2)


@pytest.mark.parametrize(
    "entry",
    [
        "1.0",
        {"reward": 1.0},
        [1.0],
        (1.0, "a", "b"),
        ("1.0", "text"),
        torch.zeros(3),
    ],
)
def test_an_entry_of_another_type_is_refused_with_its_place(entry: Any) -> None:
    message = r"must return numbers, None or \(number, text\) pairs, got .* for completion 1"
    with pytest.raises(TypeError, match=message):
        split_rewards("f", [0.0, entry], 2)


@pytest.mark.parametrize("text", [1.0, b"a"])
def test_feedback_that_is_not_text_is_refused_with_its_place(text: Any) -> None:
    message = rf"must return feedback as text, got {type(text).__name__} for completion 1"
    with pytest.raises(TypeError, match=message):
        split_rewards("f", [0.0, (1.0, text)], 2)


def _lengths(prompts: list[str], completions: list[str], **columns: Any) -> list[Any]:
    """Length, and what the row asked for."""
    return [
        (len(text), f"wanted {wanted}")
        for text, wanted in zip(completions, columns["wanted"], strict=True)
    ]


def test_the_wrapped_function_gives_rewards_to_the_host_and_delivers_texts() -> None:
    delivered: list[list[str | None]] = []
    reward = TextReward(_lengths, delivered.append)
    assert reward(prompts=["p", "q"], completions=["abc", ""], wanted=[2, 5]) == [3.0, 0.0]
    assert delivered == [["wanted 2", "wanted 5"]]


def test_an_object_or_a_partial_may_be_a_reward_function() -> None:
    class Scorer:
        def __call__(self, **columns: Any) -> list[float]:
            return [0.0]

    for function, name in ((Scorer(), "Scorer"), (functools.partial(Scorer()), "partial")):
        with pytest.raises(ValueError, match=f"'{name}' must return one entry per completion"):
            TextReward(function, lambda texts: None)(["p", "q"], ["a", "b"])


NAN = math.nan


@pytest.mark.parametrize("scale", ["group", "batch", "none"])
def test_advantages_leave_out_rollouts_without_a_reward(scale: str) -> None:
    rewards = torch.tensor([1.0, 0.0, NAN, 0.5, NAN, NAN, 2.0, NAN], dtype=torch.float64)
    known = rewards[~rewards.isnan()]
    pools = {"group": known[:3].std(), "batch": known.std(), "none": torch.tensor(1.0)}
    first = (known[:3] - 0.5) / (pools[scale] + 1e-4)
    expected = [first[0], first[1], 0.0, first[2], 0.0, 0.0, 0.0, 0.0]
    found = advantages(rewards, 4, scale)
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64))


def test_figures_are_of_the_rewards_there_are() -> None:
    figures = reward_figures(torch.tensor([1.0, NAN, 4.0, -2.0]))
    assert figures == {
        "reward_mean": 1.0,
        "reward_std": 3.0,
        "reward_min": -2.0,
        "reward_max": 4.0,
    }
    assert reward_figures(torch.tensor([NAN, 2.0]))["reward_std"] == 0.0
    assert all(map(math.isnan, reward_figures(torch.tensor([NAN])).values()))


@pytest.mark.parametrize("reward", [0.1, 0.7])
def test_a_group_with_one_reward_for_all_has_nothing_to_compare(reward: float) -> None:
    """Its advantages are those of rounding, which need not be 0."""
    rewards = torch.tensor([reward] * 10 + [reward] * 9 + [math.nan] + [reward] * 9 + [1.0])
    expected = torch.arange(30) < 20
    assert torch.equal(are_level(rewards, 10), expected)
    assert are_level(torch.full((2,), math.nan), 2).all()


@pytest.mark.parametrize("threshold", [0.7, 0.9, 1.0])
def test_a_reward_at_the_threshold_succeeds(threshold: float) -> None:
    """Both as a tensor's element and as the number that is read from it."""
    args = SimpleNamespace(success_reward_threshold=threshold)
    kept, limit = torch.tensor([threshold]), success_threshold(args)
    assert bool((kept >= limit).all()) and kept.tolist()[0] >= limit
