"""A model that answers A, B, C or D, an adapter for it, and questions to ask."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

import lab.tasks.chemistry  # noqa: F401  (registers 'science')
from tests.tiny import CHAT_TEMPLATE, tiny_config

WORDS = ["<pad>", "<eos>", "<unk>", "A", "B", "C", "D", "Question:", "Answer:", "user:", "a:"]


def letter_tokenizer() -> PreTrainedTokenizerFast:
    """One token a word."""
    vocabulary = {word: i for i, word in enumerate(WORDS)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<eos>", unk_token="<unk>"
    )
    fast.chat_template = CHAT_TEMPLATE
    return fast


def letter_model(seed: int = 0) -> LlamaForCausalLM:
    torch.manual_seed(seed)
    return LlamaForCausalLM(tiny_config(vocab_size=len(WORDS), max_position_embeddings=512))


def save_letter_adapter(folder: Path, base: str, seed: int = 1) -> Path:
    """An adapter with arbitrary, large weights."""
    config = LoraConfig(r=2, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM")
    model = get_peft_model(LlamaForCausalLM.from_pretrained(base), config)
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            parameter.data = torch.randn(parameter.shape, generator=generator)
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def letters_path(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Folder of the model: read it, do not write to it."""
    folder = tmp_path_factory.mktemp("letters") / "base"
    letter_model().save_pretrained(folder)
    letter_tokenizer().save_pretrained(folder)
    return str(folder)


@pytest.fixture
def run_path(letters_path: str, tmp_path: Path) -> Path:
    """A run folder as training leaves it, without evaluations."""
    run = save_letter_adapter(tmp_path / "run", letters_path)
    (run / "metrics.jsonl").write_text(json.dumps({"step": 1, "loss": 1.0}) + "\n")
    return run


@pytest.fixture
def questions_path(tmp_path: Path) -> Path:
    """Twelve questions in two domains."""
    path = tmp_path / "questions.jsonl"
    rows = [
        {
            "id": f"q{i}",
            "domain": "physics" if i % 2 else "biology",
            "prompt": [{"role": "user", "content": " Question: " + "A B C D " * i + "Answer:"}],
            "answer": "ABCD"[i % 4],
        }
        for i in range(12)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path
