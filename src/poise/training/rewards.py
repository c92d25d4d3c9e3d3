"""Reward functions that may also return text, checked for what they return."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any


class RewardCheckError(RuntimeError):
    """A reward function failed when it was called before training."""


class RewardTypeError(TypeError):
    """A reward function returned something of another type."""


RewardFunction = Callable[..., Sequence[Any]]


def split_rewards(
    name: str, output: Any, count: int
) -> tuple[list[float | None], list[str | None]]:
    """Takes apart what a reward function returned.

    Args:
        name: the function's name, for errors.
        output: one entry per completion: a number, None (no opinion), or a pair of that and a
            feedback text (or None) on this completion.
        count: how many completions there were.

    Returns:
        Rewards and texts, one per completion.

    Raises:
        RewardTypeError: not a list, or an entry of another type.
        ValueError: another length.
    """
    if hasattr(output, "tolist"):  # a NumPy array or a tensor
        output = output.tolist()
    if not isinstance(output, (list, tuple)):
        raise RewardTypeError(
            f"reward function {name!r} must return a list with one entry per completion, "
            f"got {type(output).__name__}"
        )
    if len(output) != count:
        raise ValueError(
            f"reward function {name!r} must return one entry per completion, expected {count}, "
            f"got {len(output)}"
        )
    rewards: list[float | None] = []
    texts: list[str | None] = []
    for index, entry in enumerate(output):
        reward, text = (
            entry if isinstance(entry, (tuple, list)) and len(entry) == 2 else (entry, None)
        )
        rewards.append(_as_reward(name, index, reward))
        if text is not None and not isinstance(text, str):
            raise RewardTypeError(
                f"reward function {name!r} must return feedback as text, got "
                f"{type(text).__name__} for completion {index}"
            )
        texts.append(text)
    return rewards, texts


def _as_reward(name: str, index: int, reward: Any) -> float | None:
    if reward is None:
        return None
    try:
        if isinstance(reward, (str, bytes)):
            raise TypeError
        return float(reward)
    except (TypeError, ValueError, RuntimeError):  # the last from a tensor of several numbers
        raise RewardTypeError(
            f"reward function {name!r} must return numbers, None or (number, text) pairs, got "
            f"{reward!r} for completion {index}"
        ) from None


class TextReward:
    """A reward function as the host expects it; texts go to `deliver`, rewards to the host.

    Args:
        function: TRL's signature, `f(prompts, completions, **columns)`.
        deliver: called with the list of texts of each call.
    """

    def __init__(
        self, function: RewardFunction, deliver: Callable[[list[str | None]], None]
    ) -> None:
        functools.update_wrapper(self, function, updated=())
        self._function = function
        self._deliver = deliver
        self._name = getattr(function, "__name__", type(function).__name__)

    def __call__(
        self, prompts: list[Any], completions: list[Any], **columns: Any
    ) -> list[float | None]:
        output = self._function(prompts=prompts, completions=completions, **columns)
        rewards, texts = split_rewards(self._name, output, len(completions))
        self._deliver(texts)
        return rewards

    def check(self, **columns: Any) -> None:
        """Calls the function and looks at what it returns; delivers nothing.

        Raises:
            TypeError, ValueError: from `split_rewards`.
            RewardCheckError: the function raised.
        """
        try:
            output = self._function(**columns)
        except Exception as error:
            raise RewardCheckError(
                f"reward function {self._name!r} raised {type(error).__name__} on empty "
                f"completions ({error}), which a model may write at any time; let it return a "
                "reward for them, or set check_rewards=False"
            ) from error
        split_rewards(self._name, output, len(columns["completions"]))


def join_texts(old: list[str | None], new: list[str | None]) -> list[str | None]:
    """Puts the texts of two reward functions together, completion by completion."""
    return ["\n".join(filter(None, pair)) or None for pair in zip(old, new, strict=True)]
