"""A policy gradient beside the distillation, in whole steps and runs: TRL's blend, and routing."""

from __future__ import annotations

import copy
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import TrainerCallback

from poise import PGPOTrainer
from poise.trl.contract import SDPOConfig, SDPOTrainer
from tests.exact import ROUNDING, apart
from tests.grids import grid
from tests.tiny import UNSCALED, tiny_dataset

Make = Callable[..., Any]
REVERSE = {
    "distillation_mode": "full_logits",
    "distillation_alpha": 1.0,
    "teacher_model_kind": "live",
}
DESCENT = {"optim": "sgd", "learning_rate": 1.0, "max_grad_norm": 0.0, "max_steps": 1}
OURS = UNSCALED | {"random_demonstration": False, "loss_tile_tokens": 5}
ROUTED = OURS | {"routing": True}
TRLS = OURS | {"normalize_by_distilled": False, "distillation_weight": 0.4}


@pytest.fixture
def make_trainer(make_config: Callable[..., Any], exact_model_path: str, float64: None) -> Make:
    def make(successes: list[int], trainer: Any = PGPOTrainer, **settings: Any) -> Any:
        """`successes`: how many of the four rollouts of each prompt of a batch succeed."""

        def reward(completions: list[str], **columns: Any) -> list[float]:
            return [
                float(i % 4 < successes[i // 4 % len(successes)]) for i in range(len(completions))
            ]

        names = (SDPOConfig,) if trainer is SDPOTrainer else ()
        batch = {"per_device_train_batch_size": 4 * len(successes)}
        return trainer(
            model=exact_model_path,
            reward_funcs=reward,
            args=make_config(*names, **REVERSE | batch | settings),
            train_dataset=tiny_dataset(),
        )

    return make


def _weights(trainer: Any) -> dict[str, Tensor]:
    return {name: p.detach().clone() for name, p in trainer.model.named_parameters()}


def _history(trainer: Any, key: str) -> list[float]:
    return [log[key] for log in trainer.state.log_history if key in log]


OFF_POLICY = {"steps_per_generation": 2, "num_iterations": 2, "epsilon": 0.01, "max_steps": 4}
BLENDS: dict[str, dict[str, Any]] = {
    "on policy": {},
    "off policy": OFF_POLICY | {"epsilon_high": 0.02},
    "off policy, a ratio a sequence": OFF_POLICY
    | {"importance_sampling_level": "sequence", "loss_type": "grpo"},
    "by samples": {"loss_type": "grpo"},
    "by a constant": {"loss_type": "dr_grpo", "scale_rewards": "none"},
    "in a batch's units": {"loss_type": "bnpo", "scale_rewards": "batch"},
}


@pytest.mark.usefixtures("device")
@pytest.mark.parametrize("blend", grid(BLENDS, ["off policy", "in a batch's units"]))
def test_the_blend_is_trls(blend: str, make_trainer: Make) -> None:
    runs = []
    for settings in ({"trainer": SDPOTrainer, "distillation_weight": 0.4}, TRLS):
        trainer = make_trainer([1, 0, 4], **BLENDS[blend] | settings)
        before = _weights(trainer)
        trainer.train()
        assert apart(_weights(trainer), before) > 1e-3
        runs.append((trainer, _weights(trainer)))
    assert apart(runs[1][1], runs[0][1]) <= ROUNDING
    for key in ("self_distillation/policy_loss", "self_distillation/distillation_loss", "loss"):
        expected = _history(runs[0][0], key)
        assert len(expected) >= 3 and any(expected)
        assert _history(runs[1][0], key) == pytest.approx(expected, rel=1e-9, abs=1e-9), key


def _by_hand(trainer: Any, model: torch.nn.Module, denominator: float) -> Tensor:
    """The routed loss, one sample at a time, by whole forwards."""
    batch = trainer._buffered_inputs[0]
    width = batch["completion_ids"].size(1)

    def log_probs(ids: Tensor, mask: Tensor, completion: Tensor) -> Tensor:
        whole = torch.cat([ids[mask > 0], completion])[None]
        return model(whole).logits[0, -len(completion) - 1 : -1].log_softmax(-1)

    total = torch.zeros((), dtype=torch.float64)
    for i, row in enumerate(batch["completion_ids"]):
        completion = row[batch["completion_mask"][i] > 0]
        student = log_probs(batch["prompt_ids"][i], batch["prompt_mask"][i], completion)
        if batch["rewards"][i] < 1 and batch["self_distillation_mask"][i]:
            context = slice(0, -width)
            ids, mask = batch["teacher_input_ids"][i], batch["teacher_attention_mask"][i]
            with torch.no_grad():
                teacher = log_probs(ids[context], mask[context], completion)
            total = total + (student.exp() * (student - teacher)).sum(-1).mean()
        else:
            logps = student.gather(-1, completion[:, None])
            total = total - batch["advantages"][i] * logps.mean()
    return total / denominator


# Group one: one success, three that fail and are shown it. Two: all fail, with nobody to be
# shown, and no advantage. Three: all succeed, without an advantage. Four: two of each.
SUCCESSES = [1, 0, 4, 2]


@pytest.mark.usefixtures("device")
@pytest.mark.parametrize("normalize", [True, False])
def test_a_step_is_that_of_the_routed_loss_by_hand(make_trainer: Make, normalize: bool) -> None:
    settings = ROUTED | DESCENT | {"normalize_by_distilled": normalize}
    trainer = make_trainer(SUCCESSES, **settings)
    model = copy.deepcopy(trainer.model)
    trainer.train()
    # Eight samples have a term, of sixteen.
    loss = _by_hand(trainer, model, 8 if normalize else 16)
    gradients = torch.autograd.grad(loss, list(model.parameters()))
    expected = {
        name: p.detach() - g
        for (name, p), g in zip(model.named_parameters(), gradients, strict=True)
    }
    assert apart(expected, {n: p.detach() for n, p in model.named_parameters()}) > 1e-3
    assert apart(_weights(trainer), expected) <= ROUNDING
    assert _history(trainer, "pgpo/distilled_fraction") == [5 / 16]
    assert _history(trainer, "pgpo/policy_fraction") == [3 / 16]


@pytest.mark.usefixtures("device")
@pytest.mark.parametrize("multiplier", grid(["information", "distance"], ["distance"]))
def test_micro_batches_of_one_equal_one_batch(make_trainer: Make, multiplier: str) -> None:
    settings = ROUTED | {"multiplier": multiplier, "sensitivity": 1.0, "signal_reference": "none"}
    whole = make_trainer(SUCCESSES, **settings)
    whole.train()
    cut = {"per_device_train_batch_size": 1, "gradient_accumulation_steps": 16}
    parts = make_trainer(SUCCESSES, **settings | cut)
    parts.train()
    keys = ["grad_norm", "pgpo/multiplier", "pgpo/information_signal", "pgpo/policy_fraction"]
    for key in keys:
        expected = _history(whole, key)
        assert len(expected) == 3
        assert _history(parts, key) == pytest.approx(expected, rel=1e-9), key
    assert apart(_weights(parts), _weights(whole)) <= ROUNDING


@pytest.mark.usefixtures("device")
def test_the_teacher_reads_what_is_distilled_and_the_student_what_has_a_term(
    make_trainer: Make,
) -> None:
    trainer = make_trainer(SUCCESSES, **ROUTED | {"max_steps": 1, "multiplier": "distance"})
    taught: list[int] = []
    seen: list[int] = []
    read = trainer._teacher_hidden_states
    trainer._teacher_hidden_states = lambda batch: (
        taught.append(len(batch["teacher_input_ids"])),
        seen.append(int(batch["loss_mask"].any(-1).sum())),
        read(batch),
    )[-1]
    trainer.train()
    assert taught == [5] and seen == [8]


@pytest.mark.usefixtures("device")
@pytest.mark.parametrize("successes", [[4, 4], [0, 0]], ids=str)
def test_a_batch_without_any_term_changes_nothing(make_trainer: Make, successes: list[int]) -> None:
    trainer = make_trainer(successes, **ROUTED | {"multiplier": "distance"})
    before = _weights(trainer)
    trainer.train()
    assert all(torch.equal(weight, before[n]) for n, weight in _weights(trainer).items())
    assert _history(trainer, "pgpo/policy_fraction") == [0.0] * 3
    assert _history(trainer, "pgpo/skipped_steps") == [0] * 3


@pytest.mark.usefixtures("device")
@pytest.mark.parametrize(
    "setting",
    [{"token_weight": "teacher_entropy"}, {"token_weight": "information"}, {"target_mix": 0.15}],
    ids=str,
)
def test_weights_and_target_act_on_the_distilled_tokens_alone(
    make_trainer: Make, setting: dict[str, Any]
) -> None:
    """The policy term's loss stays what it was, and the distillation's does not."""
    runs = []
    for own in ({}, setting):
        trainer = make_trainer(SUCCESSES, **ROUTED | DESCENT | own)
        trainer.train()
        runs.append(trainer)
    plain, shaped = (_history(run, "self_distillation/policy_loss") for run in runs)
    assert shaped == plain and plain[0] != 0
    assert apart(_weights(runs[1]), _weights(runs[0])) > 1e-6
    losses = [_history(run, "loss")[0] for run in runs]
    assert losses[0] != losses[1]


class _Weights(TrainerCallback):  # type: ignore[misc]
    """Keeps the weights after every step."""

    def __init__(self) -> None:
        self.seen: list[dict[str, Tensor]] = []

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.seen.append({n: p.detach().clone() for n, p in kwargs["model"].named_parameters()})


@pytest.mark.parametrize("level", [0.0, 0.7])
def test_a_batch_without_a_loss_takes_no_step(
    level: float, make_config: Make, exact_model_path: str, float64: None
) -> None:
    """Of a set distance: momentum would move the policy, and rounding is no advantage."""
    calls = [0]

    def reward(completions: list[str], **columns: Any) -> list[float]:
        calls[0] += 1
        return [float(i % 2) if calls[0] <= 2 else level for i in range(len(completions))]

    settings = {"multiplier": "distance", "sensitivity": 0.0, "teacher_model_kind": "base"}
    trainer = PGPOTrainer(
        model=exact_model_path,
        reward_funcs=reward,
        args=make_config(
            **settings, num_generations=8, max_steps=6, check_rewards=False, learning_rate=1e-2
        ),
        train_dataset=tiny_dataset(),
    )
    assert trainer.args.routing
    trainer.add_callback(kept := _Weights())
    trainer.train()
    moves = [apart(after, before) for before, after in pairwise(kept.seen)]
    assert moves[0] > 0  # two batches with successes
    assert moves[1:] == [0.0] * 4
    assert len(_history(trainer, "pgpo/multiplier")) == 2
