"""Rewards: what functions return, text included, and what is made of it."""

from __future__ import annotations

import functools
import logging
import math
import struct
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

logger = logging.getLogger(__name__)


class RewardCheckError(RuntimeError):
    """A reward function failed when it was called before training."""


class RewardTypeError(TypeError):
    """A reward function returned something of another type."""


RewardFunction = Callable[..., Sequence[Any]]


def name_of(function: RewardFunction) -> str:
    """What errors call it."""
    return getattr(function, "__name__", type(function).__name__)


def split_rewards(
    name: str, output: Any, count: int
) -> tuple[list[float | None], list[str | None]]:
    """Takes apart what a reward function returned, into rewards and texts.

    Args:
        name: the function's name, for errors.
        output: one entry per completion: a number, None (no opinion), or a pair of that and a
            feedback text (or None) on this completion.
        count: how many completions there were.

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
    """A reward function as TRL expects it; texts go to `deliver`, rewards to TRL.

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
        self._name = name_of(function)
        self._has_warned = False

    def __call__(
        self, prompts: list[Any], completions: list[Any], **columns: Any
    ) -> list[float | None]:
        output = self._function(prompts=prompts, completions=completions, **columns)
        rewards, texts = split_rewards(self._name, output, len(completions))
        self._deliver(texts)
        self._warn_of_nan(rewards)
        return rewards

    def _warn_of_nan(self, rewards: list[float | None]) -> None:
        if not self._has_warned and any(r is not None and math.isnan(r) for r in rewards):
            self._has_warned = True
            logger.warning(
                "Reward function %r returned nan, which counts as None does: this completion has "
                "no reward of this function. Return None to say so, else mend the function.",
                self._name,
            )

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


def advantages(rewards: Tensor, group_size: int, scale: str) -> Tensor:
    """TRL's advantages over the rollouts that have a reward; 0 for the others.

    Args:
        rewards: (N,), nan where there is none; groups stand together.
        group_size: rollouts of a group.
        scale: TRL's `scale_rewards`: what differences to the group's mean are divided by.
    """
    groups = rewards.view(-1, group_size)
    pools = {"batch": rewards.view(1, -1), "none": None}
    pool = pools.get(scale, groups)
    unit = 1.0 if pool is None else _deviation(pool)
    centred = (groups - groups.nanmean(dim=1, keepdim=True)) / (unit + 1e-4)
    return torch.where(groups.isnan(), 0.0, centred).flatten()


def are_level(rewards: Tensor, group_size: int) -> Tensor:
    """Which rollouts (N,) are of a group with one reward for all: their advantages are rounding's
    alone, which need not be 0."""
    groups = rewards.view(-1, group_size)
    least, most = groups.nan_to_num(nan=math.inf), groups.nan_to_num(nan=-math.inf)
    return (least.amin(1) >= most.amax(1)).repeat_interleave(group_size)


def success_threshold(args: Any) -> float:
    """`success_reward_threshold` as rewards are kept, in float32: 0.9 is then a success at 0.9."""
    (value,) = struct.unpack("f", struct.pack("f", args.success_reward_threshold))
    return float(value)


def pass_rate_weights(
    successes: Tensor, distilled: Tensor, group_size: int, known: Tensor | None = None
) -> Tensor:
    r"""Weight of each rollout's distillation loss, from its question's pass rate.

    .. math:: w_i = \sqrt{\hat p_q (1 - \hat p_q)} \,/\, \overline{w}

    where :math:`\hat p_q` is the share of the successes among the known rollouts of i's question q,
    and the mean :math:`\overline{w}` is over distilled rollouts with a weight above zero: the
    step keeps its size.

    Args:
        successes: which rollouts succeed, shape (N,), bool; the rollouts of a question, of all
            ranks, stand together.
        distilled: which have a teacher context, shape (N,), non-zero is distilled.
        group_size: rollouts a question.
        known: which rollouts were scored, shape (N,), bool; None for all.

    Returns:
        Weights, float32, shape (N,). Zero where a question always or never succeeds, and for
        rollouts that are not distilled.

    Raises:
        ValueError: the shapes differ, or N is no multiple of the group's size.

    Reference: SC-SDPO (arXiv 2605.27765), its weight :math:`[\hat p (1 - \hat p)]^{1/2}`.
    Choice: the abstract calls the normalization batch-adaptive and gives no formula; it is the
    mean over the rollouts that count in the generation batch.
    """
    if successes.shape != distilled.shape or successes.ndim != 1:
        raise ValueError(
            "successes and distilled must be vectors of one length, got shapes "
            f"{tuple(successes.shape)} and {tuple(distilled.shape)}"
        )
    if len(successes) % group_size:
        raise ValueError(
            f"expected whole groups of {group_size} rollouts, found {len(successes)} rollouts"
        )
    known = torch.ones_like(successes) if known is None else known
    counts = [part.view(-1, group_size).sum(1, keepdim=True) for part in (successes & known, known)]
    rate = counts[0].float() / counts[1].clamp(min=1)
    spread = (rate * (1 - rate)).sqrt().expand(-1, group_size).flatten()
    weights = torch.where(distilled != 0, spread, 0.0)
    counted = (weights > 0).sum()
    # Without a rollout that counts, 0 / 1: all zero.
    return weights / torch.where(counted > 0, weights.sum() / counted, 1.0)


def reward_figures(rewards: Tensor) -> dict[str, float]:
    """TRL's figures over the rewards there are; nan, which is not logged, without any."""
    known = rewards[~rewards.isnan()]
    if not len(known):
        return dict.fromkeys(("reward_mean", "reward_std", "reward_min", "reward_max"), math.nan)
    return {
        "reward_mean": known.mean().item(),
        "reward_std": _deviation(known.view(1, -1)).item(),
        "reward_min": known.min().item(),
        "reward_max": known.max().item(),
    }


def _deviation(groups: Tensor) -> Tensor:
    """Standard deviation of each row without its nan, 0 of fewer than two values: (rows, 1)."""
    squares = (groups - groups.nanmean(dim=1, keepdim=True)) ** 2
    count = (~groups.isnan()).sum(dim=1, keepdim=True)
    return (squares.nansum(dim=1, keepdim=True) / (count - 1).clamp(min=1)).sqrt()
