"""PGPO under DeepSpeed's ZeRO: two ranks, each with half of the batch, are one plain rank."""

from __future__ import annotations

import json
import shutil
from contextlib import nullcontext
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig
from safetensors.torch import load_file, save_file

from poise import PGPOConfig, PGPOTrainer
from tests.engines import deepspeed_settings, use_deepspeed
from tests.exact import ROUNDING, apart, in_float64
from tests.grids import grid
from tests.invariants.test_two_ranks import by_place
from tests.processes import finish, run_ranks
from tests.tiny import BRAKE, EXACT, RUN, save_tiny_model, tiny_dataset

pytestmark = pytest.mark.skipif(
    find_spec("deepspeed") is None,
    reason="needs DeepSpeed: `uvx nox -s deepspeed` makes an environment with it",
)

BATCH = 12
# ZeRO-1 reduces gradients in float32, whatever the model is in.
BOUNDS = {1: 5e-7, 2: ROUNDING, 3: ROUNDING}
GREEDY = {"do_sample": False, "temperature": None, "top_k": None, "top_p": None}
TRLS = {"tiled_loss": False, "exact_resume": False, "teacher_from_student": False}
TORCH_ADAM = {"lr": "auto", "betas": "auto", "eps": "auto", "weight_decay": "auto"}
CASES: dict[str, dict[str, Any]] = {
    "full": {},
    "lora": {"lora": True},
    "accumulated": {"gradient_accumulation_steps": 3, "num_generations": 2},
    "two steps a generation": {"gradient_accumulation_steps": 2, "steps_per_generation": 4},
    "base teacher": {"teacher_model_kind": "base"},
    "lora, base teacher": {"lora": True, "teacher_model_kind": "base"},
    "live teacher": {"teacher_model_kind": "live"},
    "refreshed teacher": {
        "teacher_model_kind": "base",
        "teacher_refresh": "once",
        "teacher_refresh_at": 0.5,
    },
    "routed": {"routing": True, "signal_reference": "none"},
    "checkpointing": {"gradient_checkpointing": True},
    "tied head": {"tied": True},
    "distance": {"multiplier": "distance", "distance_share": 1.0},
    "corrected": {"multiplier": "distance", "distance_share": 1.0, "correct_steps": True},
    "a step without a loss": {"multiplier": "distance", "distance_share": 1.0, "fails_at": 1},
    "a loss that is not finite": {"spoiled_at": 1, "lr_scheduler_type": "constant"},
    "DeepSpeed's optimizer": {
        "weight_decay": 0.0,
        "config": {"optimizer": {"type": "AdamW", "params": TORCH_ADAM | {"torch_adam": True}}},
    },
    "TRL's loss": TRLS,
    "TRL's loss, lora": TRLS | {"lora": True, "teacher_model_kind": "base"},
}
GRID = [(2, case) for case in CASES]
GRID += [(1, case) for case in ("full", "lora", "accumulated", "distance", "corrected")]
GRID += [(1, "a loss that is not finite"), (3, "TRL's loss"), (3, "TRL's loss, lora")]
QUICK = [(2, "accumulated"), (2, "distance"), (1, "full"), (3, "TRL's loss")]


class _Spoiled(PGPOTrainer):
    """Its loss is not a number at one step."""

    spoiled_at: int | None = None

    def _tiled_loss(self, model: Any, inputs: Any) -> Any:
        loss = super()._tiled_loss(model, inputs)
        return loss * torch.nan if self.state.global_step == self.spoiled_at else loss


def train(
    ranks: int, stage: int | None, model: str, folder: Path, settings: dict[str, Any]
) -> None:
    """Trains under ZeRO, or plainly (`stage` None), and writes the weights."""
    settings = dict(settings)
    own = {
        name: settings.pop(name, None)
        for name in ("lora", "config", "tied", "fails_at", "spoiled_at", "resume")
    }
    exact = settings.pop("exact", True)
    micro_batches = ranks * settings.get("gradient_accumulation_steps", 1)
    run = {
        "output_dir": str(folder),
        "weight_decay": 0.1,  # of the first parameter group alone
        "per_device_train_batch_size": BATCH // micro_batches,
        "max_steps": 4,
        "distillation_mode": "full_logits",
        "distillation_alpha": 0.5,
        "sensitivity": 3.0,
        "generation_kwargs": GREEDY,
        "random_demonstration": False,
        **(EXACT if exact else {}),
        **settings,
    }
    if stage is not None:
        use_deepspeed()
        run |= deepspeed_settings(stage, **own["config"] or {})

    def reward(prompts: list[str], trainer_state: Any, **columns: Any) -> list[float]:
        fails = trainer_state.global_step == own["fails_at"]
        return [0.0] * len(prompts) if fails else by_place(prompts, **columns)

    lora = LoraConfig(r=2, target_modules="all-linear", lora_dropout=0.0) if own["lora"] else None
    with in_float64() if exact else nullcontext():
        trainer = _Spoiled(
            model=model,
            reward_funcs=reward,
            args=PGPOConfig(**RUN | BRAKE | run),
            train_dataset=tiny_dataset(),
            peft_config=lora,
        )
        trainer.spoiled_at = own["spoiled_at"]
        trainer.train(resume_from_checkpoint=own["resume"])
    whole: Any = nullcontext()
    if stage == 3:
        import deepspeed

        whole = deepspeed.zero.GatheredParameters(list(trainer.model.parameters()))
    with whole:
        weights = {n: p.detach().clone() for n, p in trainer.model.named_parameters()}
    if trainer.is_world_process_zero():
        save_file(weights, folder / "weights.safetensors")


def _run(
    ranks: int, stage: int | None, model: str, folder: Path, settings: dict[str, Any]
) -> tuple[dict[str, torch.Tensor], list[dict[str, Any]]]:
    if ranks == 1 and stage is None:
        finish(train, ranks, stage, model, folder, settings)
    else:
        run_ranks(ranks, train, ranks, stage, model, folder, settings)
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return load_file(folder / "weights.safetensors"), lines


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory, exact_model_path: str) -> Any:
    """Runs a case without DeepSpeed, once."""
    tied = tmp_path_factory.mktemp("tied-model")
    save_tiny_model(tied, dtype=torch.float64, tie_word_embeddings=True)
    models: dict[Any, str] = {None: exact_model_path, True: str(tied)}
    runs: dict[str, Any] = {}

    def run(case: str) -> Any:
        model = models[CASES[case].get("tied")]
        if case not in runs:
            # A generation of several steps is dealt to two ranks in another order: DDP's.
            ranks = 2 if "steps_per_generation" in CASES[case] else 1
            folder = tmp_path_factory.mktemp("plain")
            runs[case] = _run(ranks, None, model, folder, CASES[case])
        return model, *runs[case]

    return run


@pytest.mark.parametrize(("stage", "case"), grid(GRID, QUICK))
def test_two_ranks_under_zero_equal_one_plain_rank(
    stage: int, case: str, tmp_path: Path, plain: Any
) -> None:
    model, one, one_log = plain(case)
    two, two_log = _run(2, stage, model, tmp_path, CASES[case])
    assert apart(two, one) <= BOUNDS[stage]
    keys = ["loss", "grad_norm", "pgpo/information_signal", "pgpo/multiplier"]
    keys += ["pgpo/distilled_fraction", "pgpo/grad_norm_clipped"]
    keys += ["pgpo/distance"] * ("distance" in CASES[case].values())
    assert all(key in one_log[0] for key in keys)
    steps = [k for k in range(4) if k != CASES[case].get("spoiled_at")]
    for a, b in ((one_log[k], two_log[k]) for k in steps):
        for key in keys:
            assert (key in a) == (key in b), key
            if key in a:
                close = pytest.approx(a[key], rel=1e3 * BOUNDS[stage], abs=BOUNDS[stage])
                assert b[key] == close, key
    assert any(abs(line.get("pgpo/multiplier", 1) - 1) > 0.1 for line in one_log[:4])
    assert any(0 < line["pgpo/distilled_fraction"] < 1 for line in one_log[:4])


@pytest.mark.parametrize(("stage", "lora"), grid([(2, False), (2, True), (1, False)], [(2, False)]))
def test_a_resumed_run_equals_the_uninterrupted_one(
    stage: int, lora: bool, tmp_path: Path, tiny_model_path: str
) -> None:
    settings = {
        "exact": False,
        "lora": lora,
        "max_steps": 6,
        "save_strategy": "steps",
        "save_steps": 2,
        "gradient_accumulation_steps": 2,
        "steps_per_generation": 4,  # the resumed run begins within rollouts
        "num_generations": 3,
        "generation_kwargs": None,
        "signal_reference": "running",
    }
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    expected, log = _run(2, stage, tiny_model_path, whole, settings)
    shutil.copytree(whole, broken)
    for step in (4, 6):
        shutil.rmtree(broken / f"checkpoint-{step}")
    settings["resume"] = True
    found, resumed = _run(2, stage, tiny_model_path, broken, settings)
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], weight) for name, weight in expected.items())
    teachers = [load_file(f / "checkpoint-6/poise_teacher.safetensors") for f in (whole, broken)]
    assert all(torch.equal(teachers[1][name], weight) for name, weight in teachers[0].items())
    keys = ["step", "loss", "pgpo/multiplier", "pgpo/information_signal"]
    found_log = [[line.get(key) for key in keys] for line in resumed[-5:-1]]
    assert found_log == [[line.get(key) for key in keys] for line in log[-5:-1]]


def test_bfloat16_trains_float32_weights_of_the_engine(
    tmp_path: Path, tiny_model_path: str
) -> None:
    """Two ranks are one, as far as bfloat16's roundings of the gradients go."""
    settings = {"exact": False, "bf16": True, "learning_rate": 1e-3}
    one, one_log = _run(1, 2, tiny_model_path, tmp_path / "one", settings)
    two, two_log = _run(2, 2, tiny_model_path, tmp_path / "two", settings)
    assert all(weight.dtype == torch.bfloat16 for weight in one.values())
    start = load_file(Path(tiny_model_path) / "model.safetensors")
    moved = torch.cat([(one[n].double() - w.double()).flatten() for n, w in start.items()]).norm()
    differs = torch.cat([(two[n].double() - one[n].double()).flatten() for n in one]).norm()
    assert differs < 0.3 * moved
    for a, b in zip(one_log[:4], two_log[:4], strict=True):
        assert b["pgpo/multiplier"] == pytest.approx(a["pgpo/multiplier"], rel=0.1)
