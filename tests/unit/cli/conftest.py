"""A model that answers A, B, C or D, an adapter for it, and questions to ask."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

import lab.tasks.chemistry  # noqa: F401  (registers 'science')
from poise.cli.main import main
from poise.trl.logs import METRICS, last_step
from tests.tiny import CHAT_TEMPLATE, save_adapter, tiny_config

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
    run = save_adapter(letters_path, tmp_path / "run", seed=1)
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


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The run folder of `run`."""
    return tmp_path / "run"


@pytest.fixture
def run(request: pytest.FixtureRequest, tiny_model_path: str, folder: Path) -> Callable[..., int]:
    """Calls the training command that a test's module names, on the tiny model, with its flags."""
    module = request.module
    own = module.FLAGS | {"model_name_or_path": tiny_model_path, "output_dir": folder}

    def call(**flags: Any) -> int:
        given = {name: value for name, value in (own | flags).items() if value is not None}
        return main([module.COMMAND, *(f"--{name}={value}" for name, value in given.items())])

    return call


def check_left(folder: Path, name: str) -> None:
    """Everything that a run of two steps with an adapter leaves in its folder."""
    assert {path.name for path in folder.iterdir()} >= {
        "config.yaml",
        "versions.json",
        "metrics.jsonl",
        "adapter_config.json",
        "adapter_model.safetensors",
        "README.md",
        "checkpoint-2",
    }
    assert last_step(folder / METRICS) == 2
    assert name in (folder / "README.md").read_text()
