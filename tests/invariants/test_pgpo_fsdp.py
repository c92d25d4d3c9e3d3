"""PGPO under FSDP2: two ranks that share the model in shards are one rank that has it whole."""

from __future__ import annotations

import json
import math
import os
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from peft import LoraConfig
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.distributed.fsdp import fully_shard
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, TrainerCallback

from poise import PGPOConfig, PGPOTrainer
from tests.engines import fsdp_settings, is_sharded, use_fsdp, whole_weights
from tests.exact import ROUNDING, apart, in_float64, same
from tests.grids import grid
from tests.processes import finish, run_ranks
from tests.tiny import EXACT, RUN, save_tiny_model, tiny_dataset

BATCH = 12  # three groups of four rollouts; with two ranks the second group lies on both
GREEDY = {"do_sample": False, "temperature": None, "top_k": None, "top_p": None}
EMA = {"teacher_model_kind": "ema"}
BASE = {"teacher_model_kind": "base"}
LORA: dict[str, Any] = {"lora": {"r": 2, "target_modules": "all-linear"}}
SHARDS = {"fsdp": {"state_dict_type": "SHARDED_STATE_DICT"}}
HEAD_APART = {"transformer_layer_cls_to_wrap": ["LlamaDecoderLayer", "Linear"]}
GATED = BASE | {
    "teacher_refresh": "gated",
    "teacher_refresh_window": 2,
    "steps_per_generation": 1,  # the gate looks at fresh rewards alone
}
CASES: dict[str, dict[str, Any]] = {
    "full, ema": EMA,
    "full, base": BASE,
    "full, live": {"teacher_model_kind": "live"},
    "full, refreshed once": BASE | {"teacher_refresh": "once", "teacher_refresh_at": 0.5},
    "full, of TRL": EMA | {"teacher_from_student": False},
    "full, tied head": EMA | {"tied": True},
    "full, routed": EMA | {"routing": True},
    "full, sampled distance": EMA | {"distance_estimator": "sampled"},
    "full, corrected afterwards": EMA | {"correct_steps": True},
    "full, by information": EMA | {"multiplier": "information"},
    "full, TRL's loss": EMA | {"tiled_loss": False},
    "full, micro-batches": EMA | {"gradient_accumulation_steps": 3},
    "full, checkpointed": EMA | {"gradient_checkpointing": True},
    "full, checkpointed by FSDP": EMA | {"fsdp": {"activation_checkpointing": True}},
    "full, kept gathered": EMA | {"fsdp": {"reshard_after_forward": False}},
    "full, offloaded": EMA | {"fsdp": {"cpu_offload": True}},
    "full, no units": EMA | {"fsdp": {"auto_wrap_policy": "NO_WRAP"}},
    "full, several epochs": EMA | {"num_iterations": 2},
    "full, resampled": EMA | {"max_resamples": 1},
    "full, evaluated": EMA | {"eval_strategy": "steps", "eval_steps": 1},
    "full, a step skipped": EMA | {"fault": True},
    "full, a rank without a loss": EMA | {"fsdp": HEAD_APART, "first_alone": True},
    "lora, ema": EMA | LORA,
    "lora, ema from zeros": EMA | LORA | {"teacher_from_student": False},
    "lora, base": BASE | LORA,
    "lora, live": {"teacher_model_kind": "live"} | LORA,
    "lora, refreshed once": BASE | {"teacher_refresh": "once", "teacher_refresh_at": 0.5} | LORA,
    "lora, on the head": EMA | {"lora": {"r": 2, "target_modules": ["q_proj", "lm_head"]}},
    "lora, micro-batches": EMA | {"gradient_accumulation_steps": 3} | LORA,
}
QUICK = ("full, ema",)


def by_place(prompts: list[str], **columns: Any) -> list[float]:
    """None to all of a prompt's rollouts succeed, by their place among those of all ranks."""
    start = int(os.environ.get("RANK", 0)) * len(prompts)
    return [float((start + i) % 4 < int(p.split()[1]) % 5) for i, p in enumerate(prompts)]


def first_alone(prompts: list[str], **columns: Any) -> list[float]:
    """The first group alone has a success, and so a loss; with two ranks it lies on one."""
    return [float(i < 2 and not int(os.environ.get("RANK", 0))) for i in range(len(prompts))]


def rising(prompts: list[str], trainer_state: Any, **columns: Any) -> list[float]:
    """One rollout of a group succeeds, then three, which the gate takes for a rise."""
    return [float(i % 4 < (1 if trainer_state.global_step < 3 else 3)) for i in range(len(prompts))]


class _Faulty(PGPOTrainer):
    """The second step's loss is no number."""

    def compute_loss(self, *args: Any, **kwargs: Any) -> Any:
        loss = super().compute_loss(*args, **kwargs)
        return loss * (math.nan if self.state.global_step == 1 else 1.0)


class _Die(TrainerCallback):
    """Ends the process in the middle of a run, as a machine that fails does."""

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == 5:
            os._exit(0)


def _trainer(
    ranks: int, model: str, folder: str, case: dict[str, Any], *callbacks: Any, **settings: Any
) -> PGPOTrainer:
    case = dict(case)
    lora, fsdp = case.pop("lora", None), case.pop("fsdp", {})
    case.pop("tied", None)
    trainer = _Faulty if case.pop("fault", False) else PGPOTrainer
    reward = first_alone if case.pop("first_alone", False) else by_place
    accumulation = case.get("gradient_accumulation_steps", 1)
    own = {
        "output_dir": folder,
        "per_device_train_batch_size": BATCH // ranks // accumulation,
        "per_device_eval_batch_size": BATCH // ranks,
        "max_steps": 4,
        "distillation_mode": "full_logits",
        "distillation_alpha": 0.5,
        "distance_share": 1.0,  # measured on all tokens, since each rank takes its part of its own
        "max_grad_norm": 0.1,
        # Ranks draw different random numbers; greedy rollouts and fixed demonstrations need none.
        "generation_kwargs": GREEDY,
        "random_demonstration": False,
        "learning_rate": 1e-3,
    }
    if ranks > 1:
        use_fsdp()
        own |= fsdp_settings(**fsdp)
    return trainer(
        model=model,
        reward_funcs=rising if case.get("teacher_refresh") == "gated" else reward,
        args=PGPOConfig(**RUN | EXACT | own | case | settings),
        train_dataset=tiny_dataset(),
        eval_dataset=tiny_dataset(4) if "eval_strategy" in case else None,
        peft_config=LoraConfig(lora_dropout=0.0, **lora) if lora else None,
        callbacks=list(callbacks),
    )


def _save(trainer: PGPOTrainer, folder: str) -> None:
    """Student and teacher, each rank with its part in it."""
    weights = whole_weights(trainer.model)
    if trainer.teacher_model is not None and trainer.teacher_model is not trainer.model:
        teacher = whole_weights(trainer.accelerator.unwrap_model(trainer.teacher_model))
        weights |= {f"teacher.{name}": weight for name, weight in teacher.items()}
    if trainer.is_world_process_zero():
        save_file(weights, f"{folder}/weights.safetensors")


def _train(ranks: int, model: str, folder: str, case: dict[str, Any]) -> None:
    with in_float64():
        trainer = _trainer(ranks, model, folder, case)
        trainer.train()
        assert is_sharded(trainer.model) == (ranks > 1)
        _save(trainer, folder)


def _run(ranks: int, model: str, folder: Path, case: Any) -> tuple[dict[str, Tensor], Any]:
    if ranks == 1:
        finish(_train, 1, model, str(folder), case)
    else:
        run_ranks(ranks, _train, ranks, model, str(folder), case)
    lines = [line for line in _log(folder) if "pgpo/distilled_fraction" in line]
    return load_file(folder / "weights.safetensors"), lines


@pytest.mark.parametrize("case", grid(CASES, QUICK))
def test_two_ranks_in_shards_equal_one(case: str, tmp_path: Path) -> None:
    settings = CASES[case]
    model = save_tiny_model(
        tmp_path / "model", dtype=torch.float64, tie_word_embeddings="tied" in settings
    )
    one, one_log = _run(1, model, tmp_path / "one", settings)
    two, two_log = _run(2, model, tmp_path / "two", settings)
    assert any(0 < line["pgpo/distilled_fraction"] < 1 for line in one_log)
    keys = ["loss", "grad_norm"] + [
        f"pgpo/{n}" for n in ("information_signal", "multiplier", "distilled_fraction")
    ]
    if settings.get("multiplier") != "information":
        keys.append("pgpo/distance")
    for step, (a, b) in enumerate(zip(one_log, two_log, strict=True)):
        is_skipped = step == 1 and "fault" in settings
        for key in keys:
            assert (key in a) == (key in b)
            assert key in a or is_skipped
            if not is_skipped:
                assert b[key] == pytest.approx(a[key], rel=1e-9, abs=ROUNDING), key
    assert one_log[-1]["pgpo/skipped_steps"] == two_log[-1]["pgpo/skipped_steps"]
    assert one_log[-1]["pgpo/skipped_steps"] == ("fault" in settings)
    assert apart(two, one) <= ROUNDING


# A run that is killed.

RESUMED: dict[str, dict[str, Any]] = {
    "full": EMA,
    "full, in shards": EMA | SHARDS,
    "full, gated, in shards": GATED | SHARDS,
    "lora, gated": GATED | LORA,
    "full, in bfloat16": EMA | {"model_init_kwargs": {"dtype": "bfloat16"}},
    "lora": EMA | LORA,
    "lora, in shards": EMA | LORA | SHARDS,
}


def _interrupted(model: str, folder: str, case: dict[str, Any], stop: bool, resume: bool) -> None:
    settings = {
        "max_steps": 8,
        "save_strategy": "steps",
        "save_steps": 2,
        "steps_per_generation": 3,  # so that rollouts are left over at the checkpoint
        "generation_kwargs": None,
        "learning_rate": 1e-2,
    }
    callbacks = [_Die()] if stop else []
    trainer = _trainer(2, model, folder, settings | case, *callbacks)
    trainer.train(resume_from_checkpoint=True if resume else None)
    assert is_sharded(trainer.model)
    _save(trainer, folder)


@pytest.mark.filterwarnings("ignore:torch.distributed is disabled:UserWarning")
@pytest.mark.parametrize("case", grid(RESUMED, ["lora"]))
def test_a_killed_run_goes_on_as_if_it_had_not_been(
    case: str, tmp_path: Path, tiny_model_path: str
) -> None:
    settings, folders = RESUMED[case], (tmp_path / "whole", tmp_path / "killed")
    run_ranks(2, _interrupted, tiny_model_path, str(folders[0]), settings, False, False)
    run_ranks(2, _interrupted, tiny_model_path, str(folders[1]), settings, True, False)
    assert not (folders[1] / "weights.safetensors").exists()
    run_ranks(2, _interrupted, tiny_model_path, str(folders[1]), settings, False, True)
    whole, resumed = (load_file(folder / "weights.safetensors") for folder in folders)
    assert same(resumed, whole)
    start = load_file(Path(tiny_model_path) / "model.safetensors")
    name = "model.layers.0.mlp.down_proj.weight"
    assert "lora" in case or not torch.equal(resumed[name].float(), start[name])
    _check_saved(folders[1], resumed, settings)
    if "gated" in case:
        assert max(line.get("pgpo/teacher_refreshes", 0) for line in _log(folders[1])) > 0


def _check_saved(folder: Path, weights: dict[str, Tensor], settings: dict[str, Any]) -> None:
    """The last checkpoint has the teacher, and the model as others load it."""
    checkpoint = folder / "checkpoint-8"
    is_lora, is_in_shards = "lora" in settings, "fsdp" in settings
    teacher = {
        name: weight
        for name, weight in weights.items()
        if (".teacher." in name if is_lora else name.startswith("teacher."))
    }
    teacher = teacher if is_lora else {n.removeprefix("teacher."): w for n, w in teacher.items()}
    if is_in_shards:  # one process reads what two have written
        saved = {name: torch.empty_like(weight) for name, weight in teacher.items()}
        with pytest.warns(UserWarning, match="load in a single process"):
            dcp.load(saved, checkpoint_id=checkpoint / "poise_teacher")
    else:
        saved = load_file(checkpoint / "poise_teacher.safetensors")
        assert all(weight.dtype == torch.float32 for weight in saved.values())  # the averages
    assert teacher
    assert same({name: saved[name].to(weight.dtype) for name, weight in teacher.items()}, teacher)
    if is_lora and not is_in_shards:
        adapter = load_file(checkpoint / "adapter_model.safetensors")
        trained = {n: w for n, w in weights.items() if ".default." in n}
        assert same(adapter, {n.replace(".default.", "."): w for n, w in trained.items()})


def _log(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


# Bfloat16: the policy of FSDP2 in autocast's place.


def _train_in_bfloat16(ranks: int, model: str, folder: str, teacher: str) -> None:
    settings = {"bf16": True, "max_steps": 2, "multiplier": "information", "optim": "sgd"}
    trainer = _trainer(ranks, model, folder, {"teacher_model_kind": teacher}, **settings)
    trainer.train()
    kinds = {param.dtype for param in trainer.model.parameters()}
    assert kinds == {torch.float32}  # shards as they are trained; gathered in bfloat16
    _save(trainer, folder)


@pytest.mark.parametrize("teacher", grid(["ema", "live"], []))
def test_products_in_bfloat16_are_those_of_one_rank(
    teacher: str, tmp_path: Path, tiny_model_path: str
) -> None:
    folders = [tmp_path / "one", tmp_path / "two"]
    finish(_train_in_bfloat16, 1, tiny_model_path, str(folders[0]), teacher)
    run_ranks(2, _train_in_bfloat16, 2, tiny_model_path, str(folders[1]), teacher)
    one, two = ([line for line in _log(folder) if "loss" in line] for folder in folders)
    # A loss is a mean over some tens of tokens, each with bfloat16's rounding on its way.
    for key in ("loss", "pgpo/information_signal"):
        assert two[0][key] == pytest.approx(one[0][key], rel=0.1), key
    assert two[0]["grad_norm"] == pytest.approx(one[0]["grad_norm"], rel=0.1)


# What is refused, before training.


def _refused(model: str, folder: str, config: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # transformers deprecates FSDP1 as well
        _trainer(2, model, folder, {"fsdp": config})


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "FSDP1": ({"version": 1, "sync_module_states": False}, "cannot run under FSDP1"),
    "rank 0 alone loads": ({"cpu_ram_efficient_loading": True}, "set it to False"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_run_is_refused(case: str, tmp_path: Path, tiny_model_path: str) -> None:
    run_ranks(2, _refused, tiny_model_path, str(tmp_path), *REFUSED[case])


def _given_in_shards(path: str, folder: str) -> None:
    dist.init_process_group("gloo")
    model = AutoModelForCausalLM.from_pretrained(path)
    fully_shard(model)
    with pytest.raises(ValueError, match="the model is sharded already"):
        PGPOTrainer(
            model=model,
            reward_funcs=by_place,
            args=PGPOConfig(folder, **RUN),
            train_dataset=tiny_dataset(),
        )


def test_a_model_that_is_sharded_is_refused(tmp_path: Path, tiny_model_path: str) -> None:
    run_ranks(2, _given_in_shards, tiny_model_path, str(tmp_path))


QUANTISED: dict[str, tuple[dict[str, Any], str]] = {
    "8 bits": ({"load_in_8bit": True}, "cannot shard a base of 8 bits"),
    "4 bits, saved whole": ({"load_in_4bit": True}, "or SHARDED_STATE_DICT"),
}


def _quantised(path: str, folder: str, bits: dict[str, Any], message: str) -> None:
    init = {"quantization_config": BitsAndBytesConfig(**bits)}
    with pytest.raises(ValueError, match=message):
        _trainer(2, path, folder, LORA, model_init_kwargs=init, save_strategy="steps")


@pytest.mark.parametrize("case", QUANTISED)
def test_a_quantised_base_that_cannot_be_sharded_is_refused(
    case: str, tmp_path: Path, tiny_model_path: str
) -> None:
    pytest.importorskip("bitsandbytes")
    run_ranks(2, _quantised, tiny_model_path, str(tmp_path), *QUANTISED[case])


# QLoRA of 4 bits; a checkpoint of DDP.


def _in_four_bits(ranks: int, path: str, folder: str) -> None:
    bits = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_compute_dtype=torch.float32)
    init = {"dtype": torch.float32, "quantization_config": bits}
    trainer = _trainer(ranks, path, folder, EMA | LORA, optim="sgd", model_init_kwargs=init)
    trainer.train()
    assert is_sharded(trainer.model) == (ranks > 1)
    assert any(type(module).__name__ == "Linear4bit" for module in trainer.model.modules())
    weights = whole_weights(trainer.model)
    if trainer.is_world_process_zero():
        save_file({n: w for n, w in weights.items() if "lora_B" in n}, f"{folder}/weights")


@pytest.mark.slow
def test_a_base_of_four_bits_in_shards_is_that_of_one_rank(
    tmp_path: Path, tiny_model_path: str
) -> None:
    pytest.importorskip("bitsandbytes")
    finish(_in_four_bits, 1, tiny_model_path, str(tmp_path / "one"))
    run_ranks(2, _in_four_bits, 2, tiny_model_path, str(tmp_path / "two"))
    one, two = (load_file(tmp_path / name / "weights") for name in ("one", "two"))
    # A thousand float32 operations on the way to a gradient, four steps.
    bound = 4e3 * torch.finfo(torch.float32).eps
    assert any(weight.norm() > 0 for weight in one.values())
    for name, weight in one.items():
        assert (two[name] - weight).norm() <= bound * weight.norm(), name


def _of_ddp(path: str, folder: str, is_sharded_now: bool) -> None:
    settings = {"save_strategy": "steps", "save_steps": 2, "max_steps": 4}
    if is_sharded_now:
        trainer = _trainer(2, path, folder, EMA, **settings)
        with pytest.raises(ValueError, match=r"written with engine DDP, this run has engine FSDP"):
            trainer.train(resume_from_checkpoint=True)
        return
    plain = PGPOConfig(folder, **RUN | EMA | settings)
    PGPOTrainer(path, by_place, plain, tiny_dataset()).train()


@pytest.mark.slow
def test_a_checkpoint_of_ddp_is_refused(tmp_path: Path, tiny_model_path: str) -> None:
    for is_sharded_now in (False, True):
        run_ranks(2, _of_ddp, tiny_model_path, str(tmp_path), is_sharded_now)
