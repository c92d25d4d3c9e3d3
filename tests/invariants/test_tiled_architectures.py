"""With the tiled loss, PGPO follows TRL's SDPO on heads and settings that are easy to get wrong."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig
from transformers import (
    AutoModelForCausalLM,
    CohereConfig,
    Gemma2Config,
    GPT2Config,
    GraniteConfig,
    PreTrainedConfig,
)

from poise import PGPOTrainer
from poise.trl.contract import SDPOConfig, SDPOTrainer
from tests.exact import ROUNDING
from tests.grids import grid
from tests.invariants.test_neutral_equality import MENDS_OFF
from tests.tiny import tiny_config, tiny_dataset, tiny_tokenizer

pytestmark = [
    pytest.mark.usefixtures("float64", "device"),
    pytest.mark.filterwarnings("ignore:Setting `save_embedding_layers`:UserWarning"),
]

SMALL: dict[str, Any] = {
    k: v
    for k, v in tiny_config().to_dict().items()
    if k
    in (
        "vocab_size",
        "hidden_size",
        "intermediate_size",
        "num_hidden_layers",
        "num_attention_heads",
        "num_key_value_heads",
        "max_position_embeddings",
        "pad_token_id",
        "eos_token_id",
        "initializer_range",
    )
}
CONFIGS: dict[str, PreTrainedConfig] = {
    "soft cap": Gemma2Config(**SMALL, head_dim=8, final_logit_softcapping=2.0, bos_token_id=None),
    "logit scale": CohereConfig(**SMALL, logit_scale=0.3, bos_token_id=None),
    "logits scaling": GraniteConfig(**SMALL, logits_scaling=3.0, bos_token_id=None),
    "tied, transposed": GPT2Config(
        vocab_size=SMALL["vocab_size"],
        n_embd=32,
        n_layer=2,
        n_head=4,
        n_positions=256,
        pad_token_id=0,
        eos_token_id=1,
        bos_token_id=None,
        initializer_range=0.2,
    ),
    "plain": tiny_config(),
}
HEAD_ADAPTER = ["q_proj", "lm_head"]
ALL_LINEAR = "all-linear"
CASES: dict[str, tuple[str, Any, dict[str, Any]]] = {
    "soft cap": ("soft cap", None, {}),
    "logit scale": ("logit scale", None, {}),
    "logits scaling": ("logits scaling", None, {}),
    "tied and transposed": ("tied, transposed", None, {}),
    "adapter on the head, live teacher": ("plain", HEAD_ADAPTER, {"teacher_model_kind": "live"}),
    "adapter on the head, base teacher": ("plain", HEAD_ADAPTER, {"teacher_model_kind": "base"}),
    "temperature": ("plain", None, {"temperature": 0.6}),
    "gradient checkpointing": ("plain", ALL_LINEAR, {"gradient_checkpointing": True}),
    "truncated completions masked": ("plain", None, {"mask_truncated_completions": True}),
    "several iterations": ("plain", None, {"num_iterations": 2}),
}


QUICK = ["soft cap", "tied and transposed", "adapter on the head, base teacher"]
COMMON: dict[str, Any] = {
    "max_steps": 4,
    "optim": "sgd",
    "learning_rate": 0.1,
    "max_completion_length": 12,
    "distillation_mode": "full_logits",
    "distillation_alpha": 0.5,
}


def every_second(completions: list[str], **columns: Any) -> list[float]:
    """Each group has its successes, whatever the model says."""
    return [float(i % 2) for i in range(len(completions))]


class PositionedSDPO(SDPOTrainer):  # type: ignore[misc]
    """The host, told where each row starts: a model with learned positions needs to be."""

    def _forward_logits(
        self, model: Any, input_ids: Any, attention_mask: Any, logits_to_keep: int
    ) -> Any:
        positions = (attention_mask.cumsum(-1) - 1).clamp(min=0)
        model = partial(model, position_ids=positions)
        return super()._forward_logits(model, input_ids, attention_mask, logits_to_keep)


def _train(trainer_class: Any, config: Any, model: str, adapted: Any) -> dict[str, torch.Tensor]:
    trainer = trainer_class(
        model=model,
        reward_funcs=every_second,
        args=config,
        train_dataset=tiny_dataset(),
        peft_config=LoraConfig(r=2, target_modules=adapted) if adapted else None,
    )
    start = {n: p.detach().clone() for n, p in trainer.model.named_parameters()}
    trainer.train()
    return {
        n: p.detach() - start[n] for n, p in trainer.model.named_parameters() if p.requires_grad
    }


@pytest.mark.parametrize("case", grid(CASES, QUICK))
def test_the_tiled_loss_moves_the_weights_as_the_host_does(
    case: str, make_config: Callable[..., Any], tmp_path: Path
) -> None:
    architecture, adapted, settings = CASES[case]
    model = _save_model(CONFIGS[architecture], tmp_path / "model")
    common = COMMON | settings
    host_class = PositionedSDPO if case == "tied and transposed" else SDPOTrainer
    host = _train(host_class, make_config(SDPOConfig, **common), model, adapted)
    ours = make_config(loss_tile_tokens=5, **common, **MENDS_OFF)
    _assert_same_change(_train(PGPOTrainer, ours, model, adapted), host)


def test_the_tiled_loss_follows_an_ema_teacher_with_an_adapter_on_the_head(
    make_config: Callable[..., Any], tmp_path: Path
) -> None:
    """Against the host's loss with our teacher: the host's own sets such a head to zero."""
    model = _save_model(CONFIGS["plain"], tmp_path / "model")
    changes = [
        _train(PGPOTrainer, make_config(tiled_loss=tiled, **COMMON), model, HEAD_ADAPTER)
        for tiled in (False, True)
    ]
    _assert_same_change(changes[1], changes[0])


def _save_model(config: PreTrainedConfig, folder: Path) -> str:
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config).double().save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return str(folder)


def _assert_same_change(found: dict[str, torch.Tensor], host: dict[str, torch.Tensor]) -> None:
    moved = torch.cat([change.flatten() for change in host.values()]).norm()
    apart = torch.cat([(found[n] - change).flatten() for n, change in host.items()]).norm()
    assert moved > 0
    assert apart <= ROUNDING * moved
