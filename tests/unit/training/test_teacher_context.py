"""What the teacher is shown: a random successful sibling, and feedback on the rollout."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from types import MethodType, SimpleNamespace
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from accelerate.logging import MultiProcessAdapter
from torch import Tensor

from poise.training import teacher_context
from poise.training._host import SDPOTrainer, TeacherContextBuilder
from poise.training.teacher_context import RolloutTeacherContextBuilder
from tests.tiny import tiny_tokenizer

GROUP = 4
TEMPLATES = {
    "reprompt_template": "{prompt}:{solution}:{feedback}",
    "solution_template": "{successful_previous_attempt}",
    "feedback_template": "{feedback_raw}",
}
TOKENIZER = tiny_tokenizer()


@pytest.fixture
def make_trainer(make_config: Callable[..., Any]) -> Callable[..., Any]:
    """What a builder reads of its trainer."""

    def make(step: int = 0, rollout_feedback: Any = None, **overrides: Any) -> Any:
        settings = TEMPLATES | {"include_environment_feedback": True}
        trainer = SimpleNamespace(
            args=make_config(**settings | overrides),
            accelerator=Accelerator(cpu=True),
            model=SimpleNamespace(training=True),
            num_generations=GROUP,
            num_generations_eval=2,
            chat_template_kwargs={},
            processing_class=TOKENIZER,
            rollout_feedback=rollout_feedback,
            _tokenizer=TOKENIZER,
            _step=step,
        )
        host = SDPOTrainer._tokenize_prompts_untruncated
        trainer._tokenize_prompts_untruncated = MethodType(host, trainer)
        return trainer

    return make


def _batch(completions: list[str]) -> dict[str, Tensor]:
    encoded = TOKENIZER(completions, padding=True, padding_side="right", return_tensors="pt")
    return {"completion_ids": encoded["input_ids"], "completion_mask": encoded["attention_mask"]}


def _build(
    builder: Any,
    rewards: list[float],
    completions: list[str] | None = None,
    prompts: list[Any] | None = None,
    feedbacks: list[Any] | None = None,
) -> dict[str, Tensor]:
    """One build; by default completion i is the i-th letter and prompt i the group's digit."""
    completions = completions or [chr(ord("a") + i) for i in range(len(rewards))]
    prompts = prompts or [str(i // GROUP) for i in range(len(rewards))]
    built: dict[str, Tensor] = builder.build(
        _batch(completions), prompts, torch.tensor(rewards), feedbacks
    )
    return built


def _texts(built: dict[str, Tensor]) -> list[str]:
    """Teacher inputs as text, prompt and completion, without padding."""
    return [
        TOKENIZER.decode(ids[mask.bool()]).replace(" ", "")
        for ids, mask in zip(
            built["teacher_input_ids"], built["teacher_attention_mask"], strict=True
        )
    ]


def _shown(built: dict[str, Tensor]) -> list[int | None]:
    """Index of the demonstration in each teacher prompt."""
    parts = [text.split(":") for text in _texts(built)]
    return [ord(part[1]) - ord("a") if len(part) == 3 else None for part in parts]


# Demonstrations


def test_every_successful_sibling_is_shown_equally_often(make_trainer: Any) -> None:
    trainer = make_trainer()
    builder, seen, steps = RolloutTeacherContextBuilder(trainer), Counter[tuple[int, Any]](), 600
    for trainer._step in range(steps):
        seen.update(enumerate(_shown(_build(builder, [1.0, 1.0, 0.0, 1.0]))))
    expected = {(i, j) for i in range(4) for j in (0, 1, 3) if i != j}
    assert seen.keys() == expected
    for (i, _), count in seen.items():
        share = steps / (3 if i == 2 else 2)
        assert abs(count - share) < 5 * share**0.5


def test_a_sample_may_be_shown_itself_on_request(make_trainer: Any) -> None:
    trainer = make_trainer(dont_reprompt_on_self_success=False)
    builder, seen = RolloutTeacherContextBuilder(trainer), set()
    for trainer._step in range(100):
        seen.update(enumerate(_shown(_build(builder, [1.0, 1.0, 0.0, 0.0]))))
    assert seen == {(i, j) for i in range(4) for j in (0, 1)}


def test_demonstrations_come_from_the_samples_own_group(make_trainer: Any) -> None:
    trainer = make_trainer()
    builder = RolloutTeacherContextBuilder(trainer)
    for trainer._step in range(20):
        shown = _shown(_build(builder, [1.0] * 12))
        assert all(j is not None and i // GROUP == j // GROUP for i, j in enumerate(shown))


def test_without_a_success_the_sample_is_left_out(make_trainer: Any) -> None:
    builder = RolloutTeacherContextBuilder(make_trainer())
    built = _build(builder, [0.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.9, 0.0])
    assert _shown(built) == [None, None, None, None, None, 4, 4, 4]
    assert built["self_distillation_mask"].tolist() == [0, 0, 0, 0, 0, 1, 1, 1]
    assert _texts(built)[0] == "0a"  # the prompt itself, then the completion


def test_successes_are_not_shown_when_they_are_not_wanted(make_trainer: Any) -> None:
    builder = RolloutTeacherContextBuilder(make_trainer(use_successful_as_teacher=False))
    assert _shown(_build(builder, [1.0] * 4)) == [None] * 4


def test_the_draw_is_that_of_the_seed_and_the_step(make_trainer: Any) -> None:
    def draws(seed: int) -> list[list[int | None]]:
        trainer = make_trainer(seed=seed)
        builder, found = RolloutTeacherContextBuilder(trainer), []
        for trainer._step in range(20):
            found.append(_shown(_build(builder, [1.0] * 8)))
        return found

    assert draws(3) == draws(3)
    assert draws(3) != draws(4)
    assert len({tuple(draw) for draw in draws(3)}) > 15


def test_the_draw_leaves_the_runs_random_numbers_alone(make_trainer: Any) -> None:
    builder = RolloutTeacherContextBuilder(make_trainer())
    states = random.getstate(), torch.get_rng_state()
    _build(builder, [1.0] * 8)
    assert random.getstate() == states[0]
    assert torch.equal(torch.get_rng_state(), states[1])


def test_in_evaluation_groups_have_their_own_size(make_trainer: Any) -> None:
    trainer = make_trainer()
    trainer.model.training = False
    shown = _shown(_build(RolloutTeacherContextBuilder(trainer), [1.0, 0.0, 0.0, 1.0]))
    assert shown == [None, 0, 3, None]


@pytest.mark.parametrize(("removes", "shown"), [(True, "b"), (False, "<think>why\nnot</think> b")])
def test_thinking_is_cut_from_a_demonstration_on_request(
    make_trainer: Any, removes: bool, shown: str
) -> None:
    trainer = make_trainer(remove_thinking_from_demonstration=removes)
    said = "<think>why\nnot</think> b"
    trainer.processing_class = SimpleNamespace(decode=lambda ids, **options: said)
    builder = RolloutTeacherContextBuilder(trainer)
    assert builder._demonstration_text(torch.tensor([3])) == shown


# Feedback


@pytest.mark.parametrize(
    ("rollout", "static", "shown"),
    [
        (None, None, ["", "", "", ""]),
        (None, ["s", None, "t", ""], ["s", "", "t", ""]),
        (["r", None, "q", None], None, ["r", "", "q", ""]),
        (["r", None, " ", ""], ["s", "s", "s", "s"], ["r", "s", "s", "s"]),
    ],
)
def test_feedback_on_the_rollout_goes_before_that_of_the_row(
    make_trainer: Any, rollout: Any, static: Any, shown: list[str]
) -> None:
    builder = RolloutTeacherContextBuilder(make_trainer(rollout_feedback=rollout))
    built = _build(builder, [0.0] * 4, feedbacks=static)
    expected = [f"0::{text}{c}" if text else f"0{c}" for text, c in zip(shown, "abcd", strict=True)]
    assert _texts(built) == expected
    assert built["self_distillation_mask"].tolist() == [float(bool(text)) for text in shown]


def test_feedback_may_be_kept_for_samples_without_a_demonstration(make_trainer: Any) -> None:
    only = {"environment_feedback_only_without_solution": True}
    trainer = make_trainer(rollout_feedback=["x"] * 4, **only)
    built = _build(RolloutTeacherContextBuilder(trainer), [1.0, 0.0, 0.0, 0.0])
    assert _texts(built) == ["0::xa", "0:a:b", "0:a:c", "0:a:d"]


@pytest.mark.parametrize("is_random", [True, False])
def test_feedback_that_the_teacher_will_not_see_is_told(
    make_trainer: Any, caplog: pytest.LogCaptureFixture, is_random: bool
) -> None:
    MultiProcessAdapter.warning_once.cache_clear()
    trainer = make_trainer(random_demonstration=is_random, include_environment_feedback=False)
    built = _build(RolloutTeacherContextBuilder(trainer), [0.0] * 4, feedbacks=["hint"] * 4)
    assert _shown(built) == [None] * 4
    assert "include_environment_feedback=False" in caplog.text


# The host's builder


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
    {"max_reprompt_len": 3},
]
each_switch = pytest.mark.parametrize("switch", SWITCHES, ids=str)


@each_case
@each_switch
def test_without_random_demonstrations_it_is_the_hosts(
    make_trainer: Any, case: dict[str, Any], switch: dict[str, Any]
) -> None:
    trainer = make_trainer(random_demonstration=False, **switch)
    host, ours = TeacherContextBuilder(trainer), RolloutTeacherContextBuilder(trainer)
    expected, found = _build(host, **case), _build(ours, **case)
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
    expected, found = _build(host, **case), _build(ours, **case)
    assert ours.last_metrics == pytest.approx(host.last_metrics, rel=1e-6)  # the host's is float32
    assert torch.equal(found["self_distillation_mask"], expected["self_distillation_mask"])
    assert found["self_distillation_mask"].dtype == expected["self_distillation_mask"].dtype


def test_with_one_success_a_group_the_draw_is_the_hosts_choice(make_trainer: Any) -> None:
    trainer = make_trainer(dont_reprompt_on_self_success=False)
    case = CASES["one success a group"]
    expected = _build(TeacherContextBuilder(trainer), **case)
    found = _build(RolloutTeacherContextBuilder(trainer), **case)
    assert all(torch.equal(found[key], expected[key]) for key in expected)


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
    batch = _batch(list("abcdefgh"))
    trainer = make_trainer(step=5)
    expected = _build(
        RolloutTeacherContextBuilder(trainer), rewards, prompts=prompts, feedbacks=feedbacks
    )
    wholes = {"0": prompts, "1": prompts, "s": feedbacks, "w": feedbacks}
    monkeypatch.setattr(teacher_context, "gather_object", lambda part: wholes[part[0]])
    for rank in range(2):
        part = slice(4 * rank, 4 * rank + 4)
        trainer.accelerator = _Rank(rank, torch.tensor(rewards), batch["completion_ids"])
        found = RolloutTeacherContextBuilder(trainer).build(
            {key: tensor[part] for key, tensor in batch.items()},
            prompts[part],
            torch.tensor(rewards[part]),
            feedbacks[part],
        )
        for key, tensor in found.items():
            assert torch.equal(tensor, expected[key][part])
