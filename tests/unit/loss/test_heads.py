"""Backbone and head reproduce the model's logits, or the split is refused."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import pytest
import torch
import transformers as hf
from peft import LoraConfig, PrefixTuningConfig, PromptTuningConfig, get_peft_model
from torch import Tensor, nn
from trl.trainer.utils import use_adapter

from poise.loss.heads import padding_shifts, split_causal_lm, verify_padding, verify_split
from tests.tiny import tiny_config

SIZES: dict[str, Any] = {
    "vocab_size": 47,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "eos_token_id": 1,
    "bos_token_id": None,
    "initializer_range": 0.2,
}
GPT2 = {"vocab_size": 47, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64}
CONFIGS: dict[str, Any] = {
    "Llama": tiny_config(),
    "Llama, tied": tiny_config(tie_word_embeddings=True),
    "Qwen 3": hf.Qwen3Config(**SIZES),
    "GPT-2": hf.GPT2Config(**GPT2, bos_token_id=1, eos_token_id=1, initializer_range=0.2),
    "Gemma 2, soft cap": hf.Gemma2Config(**SIZES, final_logit_softcapping=2.0),
    "Cohere, scale": hf.CohereConfig(**SIZES, logit_scale=0.5),
    "Granite, divisor": hf.GraniteConfig(**SIZES, logits_scaling=4.0),
}
each_model = pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS.keys())
IDS = torch.arange(2, 22).view(2, 10)
MASK = torch.tensor([[0, 0, 0, 1, 1, 1, 1, 1, 1, 1], [1] * 10])  # padded at the left
POSITIONS = torch.tensor([[0, 0, 0, *range(7)], [*range(10)]])


def _model(config: Any, dtype: torch.dtype = torch.float32) -> Any:
    torch.manual_seed(0)
    return hf.AutoModelForCausalLM.from_config(config).to(dtype).eval()


def _peft(config: Any, **settings: Any) -> Any:
    """A LoRA model whose every adapted weight differs from the base's."""
    model = get_peft_model(_model(config), LoraConfig(r=4, **settings)).eval()
    with torch.no_grad():
        for param in model.parameters():
            if param.requires_grad:
                param.add_(torch.randn_like(param) * 0.3)
    return model


@torch.no_grad()
def _own(model: nn.Module, keep: int) -> Tensor:
    inputs = {"input_ids": IDS, "attention_mask": MASK, "position_ids": POSITIONS}
    logits: Tensor = model(**inputs, use_cache=False).logits
    return logits[:, -keep - 1 : -1]


@torch.no_grad()
def _ours(model: nn.Module, keep: int) -> Tensor:
    split = split_causal_lm(model)
    return split.head(split.hidden_states(IDS, MASK, keep))  # type: ignore[no-any-return]


def _verify(model: nn.Module, **head: Any) -> None:
    split = split_causal_lm(model)
    for name, value in head.items():
        setattr(split.head, name, value)
    verify_split(split, IDS[:1], nullcontext)


@each_model
@pytest.mark.parametrize("keep", [1, 9])
def test_the_split_gives_the_models_logits(config: Any, keep: int) -> None:
    model = _model(config)
    assert _ours(model, keep).shape == (2, keep, config.vocab_size)
    torch.testing.assert_close(_ours(model, keep), _own(model, keep))


@each_model
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, "autocast"])
def test_a_true_split_is_accepted_in_every_precision(config: Any, dtype: Any) -> None:
    is_cast = dtype == "autocast"
    split = split_causal_lm(_model(config, torch.float32 if is_cast else dtype))
    context = torch.autocast("cpu", torch.bfloat16) if is_cast else nullcontext()
    verify_split(split, IDS[:1], lambda: context)


# Padding before a row


FAMILIES: dict[str, Any] = CONFIGS | {
    "OPT": hf.OPTConfig(
        vocab_size=47, hidden_size=32, ffn_dim=48, num_hidden_layers=2, num_attention_heads=4,
        max_position_embeddings=64, word_embed_proj_dim=32, init_std=0.2, pad_token_id=0,
        bos_token_id=None, eos_token_id=1,
    ),
    "GPT-Neo, local": hf.GPTNeoConfig(
        vocab_size=47, hidden_size=32, num_layers=2, attention_types=[[["global", "local"], 1]],
        num_heads=4, max_position_embeddings=64, window_size=4, initializer_range=0.2,
        bos_token_id=None, eos_token_id=1,
    ),
    "Gemma 3, sliding window": hf.Gemma3TextConfig(**SIZES, sliding_window=4),
    "Bloom, alibi": hf.BloomConfig(
        vocab_size=47, hidden_size=32, n_layer=2, n_head=4, initializer_range=0.2,
        bos_token_id=None, eos_token_id=1, pad_token_id=0,
    ),
    "Mamba": hf.MambaConfig(
        vocab_size=47, hidden_size=32, num_hidden_layers=2, state_size=4, initializer_range=0.2,
        pad_token_id=0, bos_token_id=None, eos_token_id=1,
    ),
}  # fmt: skip
EPS = torch.finfo(torch.float32).eps


def _states(model: nn.Module, ids: Tensor, mask: Tensor) -> Tensor:
    with torch.no_grad():
        return split_causal_lm(model).hidden_states(ids, mask, keep=6)


@pytest.mark.parametrize("config", FAMILIES.values(), ids=FAMILIES.keys())
def test_a_row_is_read_in_a_batch_as_it_is_alone(config: Any) -> None:
    model = _model(config)
    together = _states(model, IDS, MASK)
    alone = [_states(model, IDS[i : i + 1, start:], MASK[i : i + 1, start:]) for i, start in
             enumerate((3, 0))]  # fmt: skip
    # Sums of some hundred products, in two layers; positions that are off move them by 1.
    torch.testing.assert_close(together, torch.cat(alone), rtol=1e3 * EPS, atol=1e3 * EPS)
    verify_padding(split_causal_lm(model), IDS[:1, :1], nullcontext)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_a_model_that_passes_over_the_mask_is_refused(dtype: torch.dtype) -> None:
    config = hf.RwkvConfig(
        vocab_size=47, hidden_size=32, num_hidden_layers=2, attention_hidden_size=32,
        intermediate_size=48, bos_token_id=None, eos_token_id=1,
    )  # fmt: skip
    split = split_causal_lm(_model(config, dtype))
    with pytest.raises(ValueError, match="RwkvForCausalLM reads the padding before a shorter"):
        verify_padding(split, IDS[:1], nullcontext)


def test_padding_that_shifts_positions_is_told_from_rounding() -> None:
    for name, expected in (("GPT-2", True), ("OPT", False), ("Llama", False)):
        model = _model(FAMILIES[name], torch.bfloat16)
        with torch.no_grad():
            found = padding_shifts(lambda i, m, of=model: of(i, attention_mask=m).logits, IDS[:1])
        assert found == expected, name


# What models do to their logits


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    ("name", "forgotten"),
    [
        ("Gemma 2, soft cap", {"softcap": None}),
        ("Cohere, scale", {"scale": 1.0}),
        ("Granite, divisor", {"scale": 1.0}),
        ("Llama", {"scale": 0.95}),
        ("Llama", {"softcap": 6.0}),
    ],
)
def test_a_head_that_forgets_or_invents_a_step_is_refused(
    name: str, forgotten: dict[str, Any], dtype: torch.dtype
) -> None:
    with pytest.raises(ValueError, match=r"does not reproduce the logits of \w+ForCausalLM"):
        _verify(_model(CONFIGS[name], dtype), **forgotten)


class _Unknown(hf.LlamaForCausalLM):
    """A model that post-processes its logits in a way of its own."""

    how: Any

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        output = super().forward(*args, **kwargs)
        output.logits = self.how(output.logits)
        return output


class _UnknownInput(hf.LlamaForCausalLM):
    """A model that hands its backbone something that it alone computes."""

    def forward(self, input_ids: Any = None, **kwargs: Any) -> Any:
        return super().forward(input_ids=input_ids.flip(-1), **kwargs)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    "how",
    [
        lambda logits: logits * 1.05,
        lambda logits: logits - 0.2,
        lambda logits: 8 * torch.tanh(logits / 8),
        lambda logits: logits.log_softmax(-1),
        lambda logits: logits.index_fill(-1, torch.tensor([3]), -30.0),
    ],
    ids=["scale", "shift", "soft cap", "normalise", "forbid a token"],
)
def test_an_unknown_step_after_the_head_is_refused(how: Any, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    model = _Unknown(tiny_config()).to(dtype)
    model.how = how
    with pytest.raises(ValueError, match=r"logits of _Unknown .*set tiled_loss=False"):
        _verify(model)


def test_an_unknown_step_before_the_backbone_is_refused() -> None:
    with pytest.raises(ValueError, match="does not reproduce the logits of _UnknownInput"):
        _verify(_UnknownInput(tiny_config()))


def test_checking_leaves_no_trace() -> None:
    model = _model(hf.GPT2Config(**GPT2, bos_token_id=1, eos_token_id=1)).train()  # has dropout
    model.transformer.h[0].eval()  # a part that a user holds in evaluation
    modes = [module.training for module in model.modules()]
    state = torch.get_rng_state()
    _verify(model)
    assert torch.equal(torch.get_rng_state(), state)
    assert [module.training for module in model.modules()] == modes
    assert not any(module._forward_hooks for module in model.modules())
    with pytest.raises(ValueError, match="does not reproduce"):
        _verify(model, scale=2.0)
    assert model.training
    assert not any(module._forward_hooks for module in model.modules())


# Adapters


@each_model
def test_an_adapter_in_the_backbone_is_part_of_it(config: Any) -> None:
    is_conv = isinstance(config, hf.GPT2Config)  # whose weights are transposed
    model = _peft(config, target_modules="all-linear", fan_in_fan_out=is_conv)
    assert not split_causal_lm(model).head.has_adapter
    torch.testing.assert_close(_ours(model, 4), _own(model, 4))
    _verify(model)


@pytest.mark.parametrize(
    "settings",
    [
        {"target_modules": ["lm_head", "q_proj"]},
        {"target_modules": ["q_proj"], "modules_to_save": ["lm_head"]},
    ],
    ids=["LoRA", "trained whole"],
)
@pytest.mark.parametrize("name", ["Llama", "Granite, divisor"])
def test_an_adapter_on_the_head_follows_the_active_one(name: str, settings: dict[str, Any]) -> None:
    model = _peft(CONFIGS[name], **settings)
    split = split_causal_lm(model)
    assert split.head.has_adapter
    hidden = torch.randn(3, 32)
    with torch.no_grad():
        trained = split.head(hidden)
        with use_adapter(model, adapter_name=None):
            assert not torch.allclose(split.head(hidden), trained)
    torch.testing.assert_close(_ours(model, 4), _own(model, 4))
    _verify(model)


@pytest.mark.parametrize(
    "adapter",
    [
        PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3),
        PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3),
    ],
    ids=["prompt tuning", "prefix tuning"],
)
def test_an_adapter_that_changes_the_inputs_is_refused(adapter: Any) -> None:
    model = get_peft_model(_model(tiny_config()), adapter)
    with pytest.raises(ValueError, match=r"with \S+ adapters, which change the inputs; set tiled"):
        split_causal_lm(model)


@pytest.mark.parametrize("cls", [hf.LlamaModel, hf.LlamaForSequenceClassification])
def test_a_model_without_an_output_head_is_refused(cls: Any) -> None:
    with pytest.raises(ValueError, match=rf"{cls.__name__} has no output head .*tiled_loss=False"):
        split_causal_lm(cls(tiny_config()))


@pytest.mark.parametrize("cls", [hf.T5ForConditionalGeneration, hf.BartForConditionalGeneration])
def test_an_encoder_with_a_decoder_is_refused(cls: Any) -> None:
    sizes = {"d_model": 16, "vocab_size": 47, "num_layers": 1, "encoder_layers": 1}
    with pytest.raises(ValueError, match=rf"{cls.__name__} is an encoder with a decoder"):
        split_causal_lm(cls(cls.config_class(**sizes, decoder_layers=1, decoder_start_token_id=0)))
