"""What is counted without memory is what a run has, to the byte."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from peft import LoraConfig
from torch import nn
from torch.optim import LBFGS
from transformers import LlamaForCausalLM, Qwen3Config, Trainer

from benchmarks.loss_memory import PeakBytes, SavedBytes
from poise import IGAConfig, IGATrainer, PGPOConfig, memory
from poise.cli.main import main
from poise.iga.engine import GradientEngine
from poise.loss.divergence import Divergence
from poise.loss.tiled import tiled_distillation_loss
from poise.memory import Layout, Part
from poise.pgpo.teacher import EMATeacher
from tests.processes import run_ranks
from tests.tiny import DOMAINS, iga_run, save_tiny_model, tiny_config, tiny_isomers

from .memory_worker import LORA, PLAIN, local_bytes, measured, run, under_fsdp

ROOT = Path(__file__).parents[2]


def counted(parts: list[Part]) -> dict[str, int]:
    return {part.name: part.bytes for part in parts}


def states(model: Any, args: Any, layout: Layout) -> dict[str, int]:
    found = counted(memory.states(model, args, layout))
    (moments,) = (found.pop(name) for name in list(found) if name.startswith("optimizer"))
    return found | {"moments": moments}


@pytest.mark.parametrize("ranks", [0, -2])
def test_fewer_ranks_than_one_are_refused(ranks: int) -> None:
    with pytest.raises(ValueError, match=f"ranks: expected 1 or more, found {ranks}"):
        Layout("fsdp2", ranks)


@pytest.mark.parametrize(
    ("settings", "lora", "dtype"),
    [
        ({"teacher_model_kind": "ema"}, False, "float32"),
        ({"teacher_model_kind": "ema"}, False, "bfloat16"),
        ({"teacher_model_kind": "ema"}, True, "float32"),
        ({"teacher_model_kind": "base"}, True, "bfloat16"),
        ({"teacher_refresh": "once"}, True, "float32"),
        ({"optim": "adafactor", "teacher_model_kind": "base"}, False, "float32"),
    ],
)
def test_a_runs_states_are_counted_to_the_byte(
    settings: dict[str, Any], lora: bool, dtype: str, tmp_path: Path
) -> None:
    trainer, seen = run(tmp_path, settings, lora, dtype, {"tie_word_embeddings": lora})
    path = str(tmp_path / "model")
    layout = Layout(compute=getattr(torch, dtype))
    peft = LoraConfig(**LORA) if lora else None
    model = memory.meta_model(path, getattr(torch, dtype), peft)
    teacher = counted(memory.teacher_states(model, trainer.args, layout))
    found = states(model, trainer.args, layout)
    real = measured(trainer, seen)
    assert {name: found[name] for name in real} == real
    separate = trainer.teacher_model if trainer.teacher_model is not trainer.model else None
    is_apart = separate is not None
    assert ("teacher" in teacher) == is_apart
    if separate is not None:
        own = local_bytes([*separate.parameters(), *separate.buffers()])
        is_averaged = isinstance(trainer.teacher, EMATeacher)
        averages = trainer.teacher._averages().values() if is_averaged else []
        assert teacher == {"teacher": own, "teacher's float32 averages": local_bytes(averages)}
        assert bool(averages) == (dtype == "bfloat16")


@pytest.mark.parametrize("lora", [False, True])
def test_shards_of_two_ranks_are_counted_to_the_byte(lora: bool, tmp_path: Path) -> None:
    shape = {"intermediate_size": 47, "vocab_size": 45}  # which no two ranks have in halves
    run_ranks(2, under_fsdp, tmp_path, lora, shape)
    peft = LoraConfig(**LORA) if lora else None
    model = memory.meta_model(str(tmp_path / "0" / "model"), torch.float32, peft)
    args = PGPOConfig(str(tmp_path / "any"), optim="adamw_torch", use_cpu=True, bf16=False, **PLAIN)
    found = states(model, args, Layout("fsdp2", 2))
    first, second = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in "01")
    assert {name: found[name] for name in first} == first
    assert second["weights"] < first["weights"]  # it has the smaller shards


def test_zero_is_counted_by_its_own_rule() -> None:
    """2 + 2 bytes a parameter in bfloat16, and 12 of masters and moments; what a stage shards, by
    the number of ranks (ZeRO, arXiv 1910.02054)."""
    args = PGPOConfig("any", optim="adamw_torch", use_cpu=True, bf16=False)
    numbers = {1: (2, 2, 12 / 8), 2: (2, 2 / 8, 12 / 8), 3: (2 / 8, 2 / 8, 12 / 8)}
    for stage, (weights, gradients, optimizer) in numbers.items():
        model = nn.Linear(64, 64, bias=False, device="meta")
        found = states(model, args, Layout(f"zero{stage}", 8, torch.bfloat16))
        step = 4  # the optimizer's own counter
        assert found["weights"] == weights * 4096
        assert found["gradients"] == gradients * 4096
        assert found["float32 masters"] + found["moments"] - step == optimizer * 4096


def test_what_layers_save_is_counted_to_the_byte() -> None:
    """Beside attention on the CPU, which saves no square either."""
    config = tiny_config(num_key_value_heads=4)
    real = LlamaForCausalLM(config).train()
    ids = torch.zeros((3, 32), dtype=torch.long)
    saved = SavedBytes()
    with saved.hooks():
        output = real.model(input_ids=ids, use_cache=False)
        kept = saved.still_alive(without=[*real.parameters(), *real.buffers()])
    assert output.last_hidden_state.requires_grad
    with torch.device("meta"):
        model = LlamaForCausalLM(config)
    (part,) = memory.activations(
        model, SimpleNamespace(gradient_checkpointing=False), Layout(), 3, 32
    )
    assert part.bytes == pytest.approx(kept, rel=0.02)


@pytest.mark.parametrize("vocabulary", [2000, 5000])
def test_ten_tiles_live_at_the_peak_of_the_loss(vocabulary: int) -> None:
    torch.manual_seed(0)
    states_ = torch.randn(64, 8, requires_grad=True)
    head = nn.Linear(8, vocabulary, bias=False).requires_grad_(False)
    with PeakBytes() as peak:
        output = tiled_distillation_loss(
            states_,
            states_.detach() + 0.1,
            head,
            head,
            torch.zeros(64, dtype=torch.long),
            torch.full((64,), 1 / 64),
            divergence=Divergence("full_logits", 0.5),
            tile_tokens=16,
        )
        output.loss.backward()
    assert peak.peak / (4 * 16 * vocabulary) == pytest.approx(memory._TILES, abs=0.5)


@pytest.mark.parametrize("space", ["factor", "direction", "weight"])
def test_what_iga_keeps_of_the_domains(
    space: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept: list[int] = []
    finish = GradientEngine.finish

    def watched(engine: Any, rate: Any = None) -> None:
        inside = engine._space
        if space == "factor":
            kept.append(local_bytes([inside._sums]))
        elif space == "weight":
            kept.append(inside._scratch.size)
        finish(engine, rate)
        if space == "direction":
            tensors = [t for x in inside._layers for t in (x.running, x.basis) if t is not None]
            kept.append(local_bytes(tensors))

    monkeypatch.setattr(GradientEngine, "finish", watched)
    path = save_tiny_model(tmp_path / "model")
    args = IGAConfig(output_dir=str(tmp_path / "run"), max_steps=2, **iga_run({"space": space}))
    trainer = IGATrainer(
        model=path, args=args, train_dataset=tiny_isomers(), peft_config=LoraConfig(**LORA)
    )
    trainer.train()
    model = memory.meta_model(path, torch.float32, LoraConfig(**LORA))
    (part,) = memory.domain_gradients(model, args, len(DOMAINS))
    if space == "factor":
        assert kept == [part.bytes] * 2
    elif space == "direction":
        assert 0 < kept[-1] <= part.bytes <= 3 * kept[-1]  # the sums of a running step as well
    else:
        # On the CPU the tile is a part of the matrix.
        assert 0.5 * part.bytes <= max(kept) <= part.bytes


# The command.

QWEN = Qwen3Config(
    vocab_size=151936,
    hidden_size=4096,
    intermediate_size=12288,
    num_hidden_layers=36,
    num_attention_heads=32,
    num_key_value_heads=8,
    head_dim=128,
    tie_word_embeddings=False,
    architectures=["Qwen3ForCausalLM"],
)


@pytest.fixture(scope="module")
def qwen(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The paper's model as far as a count needs it: its configuration."""
    folder = tmp_path_factory.mktemp("qwen")
    QWEN.save_pretrained(folder)
    return str(folder)


def test_the_papers_run_is_counted_as_by_hand(qwen: str) -> None:
    from poise.cli.memory import count

    argv = ["pgpo", "--config", str(ROOT / "examples/pgpo_paper.yaml")]
    argv += ["--model_name_or_path", qwen, "--num_processes", "8"]
    argv += ["--accelerate_config", str(ROOT / "examples/engines/fsdp2.yaml")]
    parts, layout = count(argv)
    found = counted(parts)
    attention = 4096 * (2 * 4096 + 2 * 1024) + 2 * 128
    layer = attention + 3 * 4096 * 12288 + 2 * 4096
    numbers = 2 * 151936 * 4096 + 36 * layer + 4096
    assert numbers == 8_190_735_360
    assert layout == Layout("fsdp2", 8, torch.bfloat16)
    share = numbers * 4 // 8
    frequencies = 2 * 64 * 4  # of positions, which every rank has
    assert found["gradients"] == share
    assert found["weights"] == found["teacher"] == share + frequencies
    steps = 4 * sum(1 for _ in memory.meta_model(qwen, torch.float32).parameters())
    assert found["optimizer's state (adamw_torch_fused)"] == 2 * share + steps
    tokens, rollouts = 2 * (2048 + 8192), 2 * 16
    assert found[f"keys and values of {rollouts} rollouts"] == (
        rollouts * (2048 + 8192) * 36 * 2 * 8 * 128 * 2
    )
    assert found["inputs of 36 layers, 2 x 10240 tokens, checkpointed"] == 36 * tokens * 4096 * 2
    assert memory.peak(parts) < 75 * 2**30  # of a GPU with 80


def test_the_command_prints_phases_and_their_peak(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = save_tiny_model(tmp_path / "model")
    flags = ["--model_name_or_path", path, "--use_peft", "--iga_domains", "law", "--max_length"]
    assert main(["memory", "iga", *flags, "32", "--output_dir", str(tmp_path / "run")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "1 process, ddp, products in bfloat16"
    assert [line.split("  ")[0] for line in lines if line[0] != " "][1:] == [
        "always",
        "in a micro-batch",
        "each GPU, at the peak",
        "Not counted: temporaries of single operations, libraries' own buffers, fragmentation. "
        "Leave a tenth.",
    ]


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["sdpo"], "expected pgpo or iga, found 'sdpo'"),
        (["pgpo", "--load_in_4bit", "true"], "a base that is not quantised"),
        (["pgpo", "--use_fsdp", "--fsdp_version", "2", "--fsdp_offload_params", "true"], "offload"),
        (["pgpo", "--use_fsdp"], "engine: expected one of ddp"),
        (["iga", "--use_peft", "--dataset_name", "mine.jsonl"], "name them by --iga_domains"),
    ],
)
def test_what_cannot_be_counted_is_refused(
    argv: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = save_tiny_model(tmp_path / "model")
    named = ["--model_name_or_path", path, "--output_dir", str(tmp_path / "run")]
    assert main(["memory", *argv, *named]) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("poise memory: ") and message in error


def test_an_optimizer_that_takes_no_step_without_memory_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Trainer, "get_optimizer_cls_and_kwargs", lambda args: (LBFGS, {}))
    params = [nn.Parameter(torch.empty(3, device="meta"))]
    with pytest.raises(ValueError, match="cannot be counted: LBFGS takes no step"):
        list(memory.optimizer_states(params, SimpleNamespace(optim="any")))


def test_eight_bits_of_moments_are_counted() -> None:
    args = PGPOConfig("any", optim="adamw_8bit", use_cpu=True, bf16=False)
    params = [nn.Parameter(torch.empty(512, 512, device="meta"))]
    found = sum(state.nbytes for state in memory.optimizer_states(params, args))
    blocks, tables = 512 * 512 // 256, 4 * 2 * 256
    assert found >= 2 * (512 * 512 + 4 * blocks)
    assert found <= 2 * (512 * 512 + 4 * blocks) + 4 * tables


def test_a_phase_that_takes_less_does_not_add_to_the_peak() -> None:
    part = partial(Part, "any")
    parts = [part(1), part(5, memory.ROLLOUTS), part(2, memory.TRAINING), part(2, memory.TRAINING)]
    assert memory.peak(parts) == 6
