"""What a step's distance is measured on: the training forward's own states, one forward after."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from peft import LoraConfig
from transformers import BitsAndBytesConfig, LlamaForCausalLM

from poise import PGPOTrainer
from poise.loss.heads import split_causal_lm
from poise.pgpo.distance import StepTokens, policy_distance
from poise.precision import keep_differentiable
from tests.exact import in_float64
from tests.tiny import tiny_config, tiny_dataset, tiny_tokenizer, vowel_reward

EPS = torch.finfo(torch.float64).eps


@contextmanager
def forwards(model: Any) -> Iterator[list[int]]:
    """Rows of each forward of the backbone that has no gradient."""
    rows: list[int] = []

    def note(_module: Any, _args: Any, kwargs: dict[str, Any], _output: Any) -> None:
        if not torch.is_grad_enabled():
            rows.append(len(kwargs["input_ids"]))

    handle = split_causal_lm(model).backbone.register_forward_hook(note, with_kwargs=True)
    try:
        yield rows
    finally:
        handle.remove()


@pytest.fixture
def measured(make_config: Callable[..., Any]) -> Callable[..., tuple[Any, int]]:
    def train(dropout: float = 0.0, **options: Any) -> tuple[Any, int]:
        """A trainer after two steps, and how often each ran the model to measure."""
        torch.manual_seed(0)
        args = make_config(
            multiplier="distance", sensitivity=0.0, routing=False, max_steps=2, **options
        )
        trainer: Any = PGPOTrainer(
            LlamaForCausalLM(tiny_config()),
            vowel_reward,
            args,
            tiny_dataset(),
            processing_class=tiny_tokenizer(),
            peft_config=LoraConfig(r=2, target_modules="all-linear", lora_dropout=dropout),
        )
        looks: list[int] = []
        read = trainer._step_log_probs

        def look(**options: Any) -> Any:
            with forwards(trainer.model) as rows:
                found = read(**options)
            looks.append(len(rows))
            return found

        trainer._step_log_probs = look
        trainer.train()
        return trainer, sum(looks) // 2

    return train


def test_a_step_is_measured_by_one_forward(measured: Callable[..., tuple[Any, int]]) -> None:
    trainer, looks = measured()
    assert looks == 1
    assert all("pgpo/distance_rounding" not in line for line in trainer.state.log_history)


def test_dropout_in_training_does_not_enter_the_distance(
    measured: Callable[..., tuple[Any, int]],
) -> None:
    _, looks = measured(dropout=0.5, disable_dropout=False)
    assert looks == 2


def test_in_bfloat16_rounding_is_measured_too(measured: Callable[..., tuple[Any, int]]) -> None:
    trainer, looks = measured(bf16=True)
    assert looks == 2
    lines = [line for line in trainer.state.log_history if "pgpo/distance" in line]
    assert len(lines) == 2
    assert all(line["pgpo/distance_rounding"] > 0 for line in lines)


def _batch() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(2)
    prompt = torch.randint(3, 20, (4, 5), generator=generator)
    completion = torch.randint(3, 20, (4, 6), generator=generator)
    mask = torch.ones_like(prompt)
    mask[1, :2] = 0
    return {
        "prompt_ids": prompt,
        "prompt_mask": mask,
        "completion_ids": completion,
        "completion_mask": torch.ones_like(completion),
    }


def test_rounding_is_what_a_step_of_almost_no_size_is_measured_to_go() -> None:
    torch.manual_seed(1)
    model = LlamaForCausalLM(tiny_config(num_hidden_layers=4)).eval()
    tokens, batch = StepTokens(1.0, exact=True, limit=1000, temperature=1.0), _batch()
    tokens.add(batch, batch["completion_mask"])
    split = split_causal_lm(model)

    def small_step(bfloat16: bool) -> tuple[float, float]:
        with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
            old, again = tokens.log_probs(split), tokens.log_probs_again(split)
            before = [parameter.detach().clone() for parameter in model.parameters()]
            with torch.no_grad():
                for parameter in model.parameters():
                    parameter.mul_(1 + 1e-4 * torch.randn_like(parameter))
            new = tokens.log_probs(split)
            with torch.no_grad():
                for parameter, value in zip(model.parameters(), before, strict=True):
                    parameter.copy_(value)
        assert old is not None and new is not None
        distances = [policy_distance(old, part) for part in (new, again) if part is not None]
        moved, *rounding = [float(total / count) for total, count in distances]
        return moved, sum(rounding)

    true, nothing = small_step(bfloat16=False)
    assert nothing == 0.0
    measured, rounding = small_step(bfloat16=True)
    assert true < rounding / 10
    assert rounding / 3 < measured < rounding * 3


def test_states_of_the_training_forward_are_those_of_another(
    exact_model_path: str,
) -> None:
    with in_float64():
        model = LlamaForCausalLM.from_pretrained(exact_model_path, dtype=torch.float64)
    split, batch = split_causal_lm(model), _batch()
    loss_mask = batch["completion_mask"].clone()
    loss_mask[2] = 0
    loss_mask[0, 3:] = 0
    ids = torch.cat([batch["prompt_ids"], batch["completion_ids"]], 1)
    attention = torch.cat([batch["prompt_mask"], batch["completion_mask"]], 1)
    given, run = (StepTokens(0.7, exact=True, limit=7, temperature=0.8) for _ in range(2))
    given.add(batch, loss_mask, split.hidden_states(ids, attention, 6))
    run.add(batch, loss_mask)
    with forwards(model) as rows:
        first = given.log_probs(split)
        assert rows == []
        own, second = run.log_probs(split), given.log_probs(split)
        assert len(rows) == 2
    assert first is not None and own is not None and second is not None
    assert not first.requires_grad
    assert (first - own).abs().max() <= 1000 * EPS * own.abs().max()
    assert torch.equal(second, own)


@pytest.mark.parametrize("bits", [4, 8])
def test_a_quantised_base_rounds_whatever_its_hidden_states(
    bits: int, tiny_model_path: str
) -> None:
    pytest.importorskip("bitsandbytes")
    for compute in (torch.bfloat16, torch.float32):
        config = BitsAndBytesConfig(
            load_in_4bit=bits == 4, load_in_8bit=bits == 8, bnb_4bit_compute_dtype=compute
        )
        model = LlamaForCausalLM.from_pretrained(
            tiny_model_path, quantization_config=config, dtype=torch.float32
        )
        tokens, batch = StepTokens(1.0, exact=True, limit=1000, temperature=1.0), _batch()
        tokens.add(batch, batch["completion_mask"])
        keep_differentiable(model)
        split = split_causal_lm(model)
        old, again = tokens.log_probs(split), tokens.log_probs_again(split)
        assert old is not None
        if bits == 4 and compute == torch.float32:
            assert again is None
        else:
            assert again is not None
            assert float(policy_distance(old, again).total) > 0


class _Watching(PGPOTrainer):
    """A user's, from before the distance was measured on the training forward's own states."""

    def observe_statistics(
        self, statistics: Any, batch: Any, mask: Any, samples: int, loss_mask: Any
    ) -> None:
        super().observe_statistics(statistics, batch, mask, samples, loss_mask)


class _Stops(_Watching):
    """Ends its first run in the second micro-batch, after a loss that is no number."""

    has_stopped = False

    def compute_loss(self, *args: Any, **kwargs: Any) -> Any:
        if self._step_losses and not self.has_stopped:
            self.has_stopped = True
            raise InterruptedError
        loss = super().compute_loss(*args, **kwargs)
        if not self.has_stopped:
            self._step_losses[-1] *= torch.nan
        return loss


def test_a_run_that_stopped_within_a_step_leaves_nothing_of_it(
    make_config: Callable[..., Any],
) -> None:
    args = make_config(gradient_accumulation_steps=2, max_steps=1, multiplier="distance")
    rows, tokenizer = tiny_dataset(), tiny_tokenizer()
    model = LlamaForCausalLM(tiny_config())
    trainer: Any = _Stops(model, vowel_reward, args, rows, processing_class=tokenizer)
    with pytest.raises(InterruptedError):
        trainer.train()
    trainer.train()
    (line,) = [line for line in trainer.state.log_history if "pgpo/skipped_steps" in line]
    assert line["pgpo/skipped_steps"] == 0
