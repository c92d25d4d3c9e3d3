"""The builder beside the host's, and on two ranks beside one."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from poise.pgpo import teacher_context
from poise.pgpo.teacher_context import RolloutTeacherContextBuilder
from poise.trl.contract import TeacherContextBuilder

from .teacher_batches import GROUP, batch, build, stand_in


@pytest.fixture
def make_trainer(make_config: Callable[..., Any]) -> Callable[..., Any]:
    return partial(stand_in, make_config)


CHATS = [
    [{"role": "system", "content": "be brief"}, {"role": "user", "content": str(i // GROUP)}]
    for i in range(8)
]
CASES: dict[str, dict[str, Any]] = {
    "one success a group": {"rewards": [0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0]},
    "all": {"rewards": [1.0] * 8},
    "none": {"rewards": [0.0] * 8},
    "mixed, with feedback": {
        "rewards": [1.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.5, 0.0],
        "feedbacks": ["no", None, "", " ", "wrong unit", None, 3, "x"],
    },
    "uneven lengths": {
        "rewards": [0.0, 1.0, 1.0, 0.0, 1.0, 0.0, 0.0, 1.0],
        "completions": ["a", "bb", "ccc", "d", "e", "ffff", "gg", "h"],
    },
    "chats": {"rewards": [0.0, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0], "prompts": CHATS},
}
each_case = pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
SWITCHES: list[dict[str, Any]] = [
    {},
    {"environment_feedback_only_without_solution": True},
    {"include_environment_feedback": False},
    {"dont_reprompt_on_self_success": False},
    {"use_successful_as_teacher": False},
]
each_switch = pytest.mark.parametrize("switch", SWITCHES, ids=str)


@each_case
@each_switch
def test_without_random_demonstrations_it_is_the_hosts(
    make_trainer: Any, case: dict[str, Any], switch: dict[str, Any]
) -> None:
    trainer = make_trainer(random_demonstration=False, **switch)
    host, ours = TeacherContextBuilder(trainer), RolloutTeacherContextBuilder(trainer)
    expected, found = build(host, **case), build(ours, **case)
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[key], expected[key]) for key in expected)
    assert ours.last_metrics == host.last_metrics


@each_case
@each_switch
def test_with_random_demonstrations_metrics_and_masks_are_still_the_hosts(
    make_trainer: Any, case: dict[str, Any], switch: dict[str, Any]
) -> None:
    trainer = make_trainer(**switch)
    host, ours = TeacherContextBuilder(trainer), RolloutTeacherContextBuilder(trainer)
    expected, found = build(host, **case), build(ours, **case)
    assert ours.last_metrics == pytest.approx(host.last_metrics, rel=1e-6)  # the host's is float32
    assert torch.equal(found["self_distillation_mask"], expected["self_distillation_mask"])
    assert found["self_distillation_mask"].dtype == expected["self_distillation_mask"].dtype


class _Rank:
    """An accelerator of one of two ranks, whose gathers return the whole that both would."""

    device = torch.device("cpu")

    def __init__(self, index: int, rewards: Tensor, completion_ids: Tensor) -> None:
        self.process_index = index
        self._whole = (rewards, completion_ids)

    def pad_across_processes(self, tensor: Tensor, **options: Any) -> Tensor:
        return tensor

    def gather(self, tensor: Tensor) -> Tensor:
        return self._whole[tensor.ndim - 1]


def test_two_ranks_show_what_one_would(make_trainer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    rewards = [1.0, 1.0, 0.0, 1.0, 0.0, 1.0, 1.0, 1.0]
    prompts, feedbacks = list("00001111"), list("stuvwxyz")
    whole = batch(list("abcdefgh"))
    trainer = make_trainer(step=5)
    expected = build(
        RolloutTeacherContextBuilder(trainer), rewards, prompts=prompts, feedbacks=feedbacks
    )
    wholes = {"0": prompts, "1": prompts, "s": feedbacks, "w": feedbacks}
    monkeypatch.setattr(teacher_context, "gather_object", lambda part: wholes[part[0]])
    for rank in range(2):
        part = slice(4 * rank, 4 * rank + 4)
        trainer.accelerator = _Rank(rank, torch.tensor(rewards), whole["completion_ids"])
        found = RolloutTeacherContextBuilder(trainer).build(
            {key: tensor[part] for key, tensor in whole.items()},
            prompts[part],
            torch.tensor(rewards[part]),
            feedbacks[part],
        )
        for key, tensor in found.items():
            assert torch.equal(tensor, expected[key][part])
