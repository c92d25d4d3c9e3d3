"""Feedback of reward functions reaches the teacher; prompts without a success are tried again."""

from __future__ import annotations

from collections import defaultdict
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from accelerate import PartialState
from accelerate.logging import MultiProcessAdapter
from torch import Tensor, nn

from poise.pgpo.rollouts import RolloutMixin
from poise.trl.contract import SDPOTrainer
from tests.tiny import tiny_tokenizer

from .test_prompts import with_end

TOKENIZER = tiny_tokenizer()
GROUP = 2
PROMPTS = ["p", "p", "q", "q"]


class Host(SDPOTrainer):  # type: ignore[misc]
    """The host with scripted generation and plain scoring, and nothing of a model."""

    def __init__(self, rounds: list[list[str]], functions: list[Any], **args: Any) -> None:
        defaults = {
            "max_resamples": 0,
            "success_reward_threshold": 1.0,
            "pass_rate_weight": False,
            "routing": False,
            "remove_unused_columns": False,
            "scale_rewards": "group",
        }
        self.args = SimpleNamespace(**defaults | args)
        self.accelerator = SimpleNamespace(
            process_index=0, num_processes=1, gather=lambda part: part
        )
        self.model = SimpleNamespace(training=True)
        self.num_generations = self.num_generations_eval = GROUP
        self.processing_class = TOKENIZER
        self.reward_funcs = functions
        self.reward_weights = torch.ones(len(functions))
        self.state = SimpleNamespace(global_step=7)
        self._metrics: Any = {"train": defaultdict(list), "eval": defaultdict(list)}
        self._watched: dict[str, float] = {}
        self._rounds = iter(rounds)
        self.asked: list[int] = []  # prompts per call of the generation
        self.scored: list[list[str]] = []

    def _generate(self, prompt_ids: list[list[int]]) -> tuple[list[list[int]], list[list[int]]]:
        self.asked.append(len(prompt_ids))
        return prompt_ids, TOKENIZER(next(self._rounds))["input_ids"]

    def _calculate_rewards(
        self, inputs: Any, prompts: Any, completions: Any, completion_ids_list: Any
    ) -> Tensor:
        self.scored.append(list(completions))
        columns = {k: [row[k] for row in inputs] for k in inputs[0] if k != "prompt"}
        outputs = [
            f(
                prompts=prompts,
                completions=completions,
                completion_ids=completion_ids_list,
                **columns,
            )
            for f in self.reward_funcs
        ]
        rows = [[torch.nan if r is None else r for r in output] for output in outputs]
        return torch.tensor(rows).T

    def sample_rollouts(self, inputs: Any) -> Any:
        ids = [TOKENIZER(row["prompt"])["input_ids"] for row in inputs]
        return self._generate(ids)[1]

    def _prepare_training_batch(self, inputs: Any) -> Any:
        completion_ids = self.sample_rollouts(inputs)
        texts = TOKENIZER.batch_decode(completion_ids)
        prompts = [row["prompt"] for row in inputs]
        rewards = self._calculate_rewards(inputs, prompts, texts, completion_ids)
        for figure in ("mean", "std", "min", "max"):
            self._metrics["train"][f"self_distillation/reward_{figure}"].append(0.5)
        self._metrics["train"]["completions/mean_length"].append(1.0)
        rewards = (rewards * self.reward_weights).nansum(dim=1)
        return {"completions": texts, "rewards": rewards}


class Trainer(RolloutMixin, Host):
    pass


def is_good(completions: list[str], **columns: Any) -> list[Any]:
    return [
        (float(text == "g"), f"{text} is not g" if text != "g" else None) for text in completions
    ]


def _trainer(rounds: list[list[str]], functions: Any = (is_good,), **args: Any) -> Any:
    trainer = Trainer(rounds, list(functions), **args)
    trainer._wrap_reward_functions()
    return trainer


def _inputs() -> list[dict[str, Any]]:
    return [{"prompt": prompt, "answer": prompt.upper()} for prompt in PROMPTS]


# Feedback


def test_texts_of_the_batch_are_kept_for_the_teacher() -> None:
    trainer = _trainer([["g", "b", "c", "g"]])
    batch = trainer._prepare_training_batch(_inputs())
    assert batch["rewards"].tolist() == [1.0, 0.0, 0.0, 1.0]
    assert trainer.rollout_feedback == [None, "b is not g", "c is not g", None]
    assert trainer._watched == {"reward": 0.5, "completion length": 1.0}
    assert (trainer.asked, len(trainer.scored)) == ([4], 1)


def test_texts_of_several_functions_are_joined() -> None:
    def against(answer: list[str], **columns: Any) -> list[Any]:
        return [(None, f"answer {text}") for text in answer]

    trainer = _trainer([["g", "b", "c", "g"]], [is_good, against])
    trainer._prepare_training_batch(_inputs())
    assert trainer.rollout_feedback[:2] == ["answer P", "b is not g\nanswer P"]


def test_a_reward_model_is_left_to_the_host() -> None:
    module = nn.Linear(1, 1)
    trainer = _trainer([], [module])
    assert trainer.reward_funcs == [module]
    trainer._check_reward_functions(_inputs()[0])


# Checking reward functions before the run


def test_reward_functions_are_tried_on_empty_completions() -> None:
    seen: list[dict[str, Any]] = []

    def watch(**columns: Any) -> list[float]:
        seen.append(columns)
        return [0.0] * len(columns["completions"])

    trainer = _trainer([], [watch])
    trainer._check_reward_functions(_inputs()[0])
    (columns,) = seen
    assert columns.pop("trainer_state").global_step == 7
    assert columns == {
        "prompts": ["p", "p"],
        "completions": ["", ""],
        "completion_ids": [[], []],
        "answer": ["P", "P"],
    }


def test_a_chat_is_tried_with_an_empty_message() -> None:
    def watch(completions: Any, **columns: Any) -> list[float]:
        assert all(
            completion == [{"role": "assistant", "content": ""}] for completion in completions
        )
        return [0.0] * len(completions)

    row = {"prompt": [{"role": "user", "content": "p"}]}
    _trainer([], [watch])._check_reward_functions(row)


def test_the_trial_has_the_columns_that_a_batch_has() -> None:
    def watch(**columns: Any) -> list[float]:
        assert set(columns) - {"trainer_state"} == {
            "prompts",
            "completions",
            "completion_ids",
            "privileged_context",
        }
        return [0.0] * len(columns["completions"])

    trainer = _trainer([], [watch], remove_unused_columns=True)
    trainer._check_reward_functions(_inputs()[0] | {"privileged_context": "hint"})


# Rollouts without a reward


def _by_text(completions: list[str], **columns: Any) -> list[float | None]:
    return [{"g": 1.0, "b": 0.0}.get(text) for text in completions]


def test_a_rollout_without_a_reward_has_none_and_no_advantage() -> None:
    trainer = _trainer([["g", "n", "b", "g"]], [_by_text])
    batch = trainer._prepare_training_batch(_inputs())
    assert trainer.rollout_unscored.tolist() == [False, True, False, False]
    assert batch["rewards"].isnan().tolist() == [False, True, False, False]
    assert batch["advantages"][:2].tolist() == [0.0, 0.0]
    metrics = trainer._metrics["train"]
    assert metrics["pgpo/unscored_fraction"] == [0.25]
    assert metrics["self_distillation/reward_mean"] == pytest.approx([2 / 3])
    assert metrics["self_distillation/reward_min"] == [0.0]


@pytest.mark.parametrize("value", [float("inf"), -float("inf"), 1e39])
@pytest.mark.parametrize("guilty", [["broken"], ["other"], ["broken", "other"]], ids=str)
def test_an_infinite_reward_is_refused_where_it_weighs(value: float, guilty: list[str]) -> None:
    """And the functions that gave it are named, no other."""

    def broken(completions: list[str], **columns: Any) -> list[float]:
        return [value if "broken" in guilty else 1.0] + [0.0] * (len(completions) - 1)

    def other(completions: list[str], **columns: Any) -> list[float]:
        return [0.0] * (len(completions) - 1) + [value if "other" in guilty else 1.0]

    trainer = _trainer([["g", "n", "b", "g"]] * 2, [broken, _by_text, other])
    message = rf"reward functions {', '.join(guilty)}: expected finite rewards"
    with pytest.raises(ValueError, match=message):
        trainer._prepare_training_batch(_inputs())
    trainer.reward_weights = torch.tensor([0.0, 1.0, 0.0])
    assert trainer._prepare_training_batch(_inputs())["advantages"].isfinite().all()


def test_rewards_that_are_not_numbers_are_none() -> None:
    def broken(completions: list[str], **columns: Any) -> list[float]:
        return [float("nan")] * len(completions)

    trainer = _trainer([["g", "n", "b", "g"]], [broken])
    batch = trainer._prepare_training_batch(_inputs())
    assert trainer.rollout_unscored.all() and batch["rewards"].isnan().all()
    assert batch["advantages"].tolist() == [0.0] * 4


def test_one_function_that_weighs_gives_a_reward() -> None:
    def nobody(completions: list[str], **columns: Any) -> list[None]:
        return [None] * len(completions)

    trainer = _trainer([["g", "n", "b", "g"]] * 2, [_by_text, nobody])
    trainer._prepare_training_batch(_inputs())
    assert trainer.rollout_unscored.tolist() == [False, True, False, False]
    trainer.reward_weights = torch.tensor([0.0, 1.0])
    trainer._prepare_training_batch(_inputs())
    assert trainer.rollout_unscored.all()


def test_a_batch_of_rewards_is_the_hosts() -> None:
    trainer = _trainer([["g", "b", "b", "g"]], [_by_text])
    assert "advantages" not in trainer._prepare_training_batch(_inputs())
    assert trainer._metrics["train"]["pgpo/unscored_fraction"] == [0.0]
    assert trainer._metrics["train"]["self_distillation/reward_mean"] == [0.5]


def test_known_failures_alone_are_sampled_again() -> None:
    rounds = [["n", "n", "b", "n"], ["g", "b"]]
    trainer = _trainer(rounds, [_by_text], max_resamples=2)
    batch = trainer._prepare_training_batch(_inputs())
    assert trainer.asked == [4, 2]  # the second group; of the first nobody knows a failure
    assert batch["completions"] == ["n", "n", "g", "b"]


def test_the_threshold_of_zero_is_not_reached_without_a_reward() -> None:
    trainer = _trainer([["n", "m", "n", "m"]], [_by_text], success_reward_threshold=0.0)
    trainer._prepare_training_batch(_inputs())
    failed = trainer._prompts_without_success(TOKENIZER(["n", "m", "b", "n"])["input_ids"])
    assert not failed.any()  # the first group says nothing, and 0 is a success in the second


# Prompts


def test_no_rollout_starts_behind_an_end() -> None:
    trainer = _trainer([])
    trainer.processing_class, trainer.eos_token_ids = with_end(), [1]
    trainer.max_prompt_length = None
    assert trainer._tokenize_prompts(["ab", "c"]) == TOKENIZER(["ab", "c"])["input_ids"]
    written = trainer._tokenize_prompts(["ab<eos>"])  # an end of the prompt's own stays
    assert written == TOKENIZER(["ab<eos>"])["input_ids"]


def test_an_end_that_a_chat_template_writes_stays() -> None:
    trainer = _trainer([])
    trainer.processing_class, trainer.eos_token_ids = with_end(), [1]
    trainer.max_prompt_length, trainer.chat_template_kwargs = None, {}
    trainer.processing_class.chat_template = "{{ messages[0].content }}<eos>"
    (ids,) = trainer._tokenize_prompts([[{"role": "user", "content": "ab"}]])
    assert ids == TOKENIZER("ab<eos>")["input_ids"]


def test_a_prompt_that_is_cut_is_told(caplog: pytest.LogCaptureFixture) -> None:
    PartialState()  # which the logger asks for
    MultiProcessAdapter.warning_once.cache_clear()
    trainer = _trainer([])
    trainer.eos_token_ids, trainer.max_prompt_length = [1], 3
    assert trainer._tokenize_prompts(["abc"]) == TOKENIZER(["abc"])["input_ids"]
    assert not caplog.text
    assert trainer._tokenize_prompts(["abc", "defg"]) == TOKENIZER(["abc", "efg"])["input_ids"]
    assert "longer than max_prompt_length=3" in caplog.text


# Resampling


def test_prompts_without_a_success_alone_are_sampled_again() -> None:
    trainer = _trainer([["g", "b", "c", "d"], ["e", "g"]], max_resamples=3)
    batch = trainer._prepare_training_batch(_inputs())
    assert batch["completions"] == ["g", "b", "e", "g"]
    assert batch["rewards"].tolist() == [1.0, 0.0, 0.0, 1.0]
    assert trainer.rollout_feedback == [None, "b is not g", "e is not g", None]
    assert trainer.asked == [4, 2]
    assert trainer.scored == [["g", "b", "c", "d"], ["g", "b", "e", "g"]]  # each set once
    assert trainer._metrics["train"]["pgpo/resampled_fraction"] == [0.5]


@pytest.mark.parametrize(("rank", "asked", "stays"), [(0, 1, ["g", "b"]), (1, 2, ["x", "y"])])
def test_each_rank_generates_its_own_failures_and_none_stays_out(
    rank: int, asked: int, stays: list[str]
) -> None:
    own = {0: ["g", "b"], 1: ["c", "d"]}[rank]
    trainer = _trainer([own, ["x", "y"][:asked]], max_resamples=1)
    trainer.accelerator = SimpleNamespace(
        process_index=rank, num_processes=2, gather=lambda part: part
    )
    # What scoring knows after gathering: the first rank's group has a success.
    trainer._prompts_without_success = lambda completions: torch.tensor([False] * 2 + [True] * 2)
    trainer._rollout_inputs = _inputs()[2 * rank : 2 * rank + 2]
    _, completions = trainer._generate([[3], [3]])
    assert trainer.asked == [2, asked]
    assert TOKENIZER.batch_decode(completions) == stays


def test_a_score_is_used_for_its_own_batch_alone() -> None:
    trainer = _trainer([["g"] * 4, ["g"] * 4], max_resamples=1)
    for _ in range(2):  # the same completions to other rows must be scored again
        trainer._prepare_training_batch(_inputs())
    assert len(trainer.scored) == 2


def test_success_is_of_the_weighted_sum_of_rewards() -> None:
    def none(completions: list[str], **columns: Any) -> list[Any]:
        return [None for _ in completions]

    rounds = [["b"] * 4, ["g"] * 4]
    trainer = _trainer(rounds, [is_good, none], max_resamples=1, success_reward_threshold=0.5)
    trainer.reward_weights = torch.tensor([0.4, 10.0])
    trainer._prepare_training_batch(_inputs())
    assert trainer._prompts_without_success(TOKENIZER(["g"] * 4)["input_ids"]).all()
    trainer.reward_weights = torch.tensor([0.5, 10.0])
    assert not trainer._prompts_without_success(TOKENIZER(["g"] * 4)["input_ids"]).any()


def test_evaluation_is_not_resampled() -> None:
    trainer = _trainer([["b"] * 4], max_resamples=3)
    trainer.model.training = False
    trainer._prepare_training_batch(_inputs())
    assert trainer.asked == [4]
    assert trainer._watched == {}
