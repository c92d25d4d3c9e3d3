"""How often a PGPO step makes the host wait grows with nothing that makes a step large."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import LlamaForCausalLM

from poise import PGPOTrainer
from tests.host_syncs import HostSyncs
from tests.tiny import tiny_config, tiny_dataset, tiny_tokenizer, vowel_reward

Setting = dict[str, int]


def _micro_batch(rows: int) -> dict[str, Tensor]:
    """Padding everywhere; every other sample failed and is distilled, the others succeeded."""
    failed = torch.arange(rows).remainder(2).float()

    def ids(width: int) -> Tensor:
        return torch.arange(3, 3 + rows * width).remainder(20).add(3).view(rows, width)

    def mask(*row: int) -> Tensor:
        return torch.tensor([row]).repeat(rows, 1)

    return {
        "prompt_ids": ids(5),
        "prompt_mask": mask(0, 0, 1, 1, 1),
        "completion_ids": ids(4),
        "completion_mask": mask(1, 1, 1, 0),
        "teacher_input_ids": ids(10),
        "teacher_attention_mask": mask(0, 1, 1, 1, 1, 1, 1, 1, 1, 0),
        "old_per_token_logps": torch.full((rows, 4), -2.0),
        "self_distillation_mask": failed,
        "rewards": 1 - failed,
        "advantages": 0.5 - failed,
    }


def _step(trainer: Any, micro_batches: int, rows: int) -> None:
    trainer.current_gradient_accumulation_steps = micro_batches
    for _ in range(micro_batches):
        loss = trainer.compute_loss(trainer.model, _micro_batch(rows))
        trainer.accelerator.backward(loss)
    norm = trainer._clip_grad_norm(trainer.model)
    trainer._get_grad_norm(trainer.model, grad_norm=norm)
    trainer.optimizer.step()
    trainer._after_optimizer_step()
    trainer.model.zero_grad()


@pytest.fixture
def syncs(make_config: Callable[..., Any]) -> Callable[..., Counter[str]]:
    def count(
        layers: int = 1, tile: int = 1000, rows: int = 2, micro_batches: int = 1, **options: Any
    ) -> Counter[str]:
        """Ours; transformers' own, which looks for padding in each forward, are taken off."""
        model = LlamaForCausalLM(tiny_config(num_hidden_layers=layers))
        args = make_config(
            loss_tile_tokens=tile,
            distillation_mode="full_logits",
            signal_reference="none",
            **options,
        )
        trainer: Any = PGPOTrainer(
            model, vowel_reward, args, tiny_dataset(), processing_class=tiny_tokenizer()
        )
        trainer.create_optimizer_and_scheduler(10)
        trainer.model.train()
        _step(trainer, 1, rows)  # looks once at whether the model can be split
        ids = torch.full((rows, 6), 3)  # what all rows have as padding is cut off before
        with HostSyncs() as own, torch.no_grad():
            model.model(ids, attention_mask=torch.ones_like(ids), use_cache=False)
        with HostSyncs() as found:
            _step(trainer, micro_batches, rows)
        assert trainer.step_scale.last.multiplier != 1.0
        looks = options.get("multiplier") == "distance"  # after the step
        forwards = (2 + looks) * micro_batches  # student's and teacher's
        found.counts["item"] -= forwards * own.counts["item"]
        return found.counts

    return count


@pytest.mark.parametrize("multiplier", ["information", "distance"])
@pytest.mark.parametrize("larger", [{"layers": 3}, {"tile": 1}, {"rows": 6}], ids=str)
def test_waits_do_not_grow(
    larger: Setting, multiplier: str, syncs: Callable[..., Counter[str]]
) -> None:
    assert syncs(**larger, multiplier=multiplier) == syncs(multiplier=multiplier)


def test_waits_of_ours_in_a_step(syncs: Callable[..., Counter[str]]) -> None:
    one, two = syncs(), syncs(micro_batches=2)
    # Samples and columns, the tokens' range, the step's sums, the signal; the loss, the norm.
    assert one == {"tolist": 4, "nonzero": 1, "item": 2}
    assert two - one == {"tolist": 2, "nonzero": 1, "item": 1}


def test_distance_control_adds_its_own_waits(syncs: Callable[..., Counter[str]]) -> None:
    # The sequences with a loss, the tokens that it looks at, and how far the step went; in one of
    # the first steps, as this is, and in every eighth what rounding adds.
    alone = syncs(multiplier="distance", routing=False)
    assert alone - syncs() == {"tolist": 3, "nonzero": 1}
    # The tokens with a policy gradient, and the share of such rollouts.
    assert syncs(multiplier="distance") - alone == {"item": 1, "nonzero": 1}
