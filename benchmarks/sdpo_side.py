"""A trainer, Poise's or TRL's, that takes one step on a given batch whenever it is asked to."""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")

import torch
from datasets import Dataset
from peft import LoraConfig
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer, PrinterCallback, TrainerCallback
from transformers.utils import logging
from trl.experimental.sdpo import SDPOConfig, SDPOTrainer

from poise import PGPOConfig, PGPOTrainer
from poise.models import resolve_model
from poise.precision import pick_dtype

logging.disable_progress_bar()
# TRL still uses transformers' old names for activation checkpointing.
warnings.filterwarnings("ignore", ".*gradient_checkpointing.* is deprecated", FutureWarning)

MODES: dict[str, dict[str, Any]] = {
    "jsd": {"distillation_mode": "full_logits"},
    "topk": {
        "distillation_mode": "topk_logits",
        "distillation_topk": 100,
        "distillation_add_tail": True,
    },
}
SIDES = {f"{library}_{mode}": (library, mode) for library in ("poise", "trl") for mode in MODES}


@dataclass(frozen=True)
class Setting:
    """Of a batch and the model under it; `vocabulary` None is the model's own."""

    model: str
    device: str
    tokens: int
    sequences: int
    prompt: int
    vocabulary: int | None = None
    checkpointing: bool = True
    dtype: str = "auto"
    generate: bool = False

    @property
    def torch_dtype(self) -> torch.dtype:
        return pick_dtype(self.dtype, self.device)


class Clock(TrainerCallback):
    """Seconds of the last step, the other callbacks' included."""

    def __init__(self, device: str) -> None:
        self.seconds = 0.0
        self._device = torch.device(device)
        self._begin = 0.0

    def now(self) -> float:
        if self._device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()

    def on_step_begin(self, *args: Any, **kwargs: Any) -> None:
        self._begin = self.now()

    def on_step_end(self, *args: Any, **kwargs: Any) -> None:
        self.seconds = self.now() - self._begin


class Side:
    """A trainer that takes one step on a given batch whenever it is asked to."""

    def __init__(self, side: str, setting: Setting, folder: str) -> None:
        library, mode = SIDES[side]
        self._is_watched = False
        self.setting, self.clock = setting, Clock(setting.device)
        self.measuring: list[float] = []  # seconds that each step of distance control spent on it
        config = MODES[mode] | {
            "output_dir": os.path.join(folder, side),
            "max_steps": 1,
            "per_device_train_batch_size": setting.sequences,
            "num_generations": setting.sequences,
            "distillation_alpha": 0.5,
            "teacher_model_kind": "ema",  # TRL's
            "bf16": setting.torch_dtype == torch.bfloat16,
            "gradient_checkpointing": setting.checkpointing,
            "use_cpu": torch.device(setting.device).type == "cpu",
            "save_strategy": "no",
            "logging_strategy": "no",
            "report_to": "none",
            "disable_tqdm": True,
        }
        if setting.generate:
            length = setting.tokens // setting.sequences
            config |= {
                "max_completion_length": length,
                "generation_kwargs": {"min_new_tokens": length},
                "include_environment_feedback": True,
            }
        if library == "poise":  # against a reference the first multiplier would be 1
            arguments = PGPOConfig(**config, multiplier="distance", signal_reference="none")
            build, self.distance = PGPOTrainer, arguments.distance_control()
        else:
            build, arguments = SDPOTrainer, SDPOConfig(**config)
        path = model_path(setting, folder)
        self.trainer: Any = build_trainer(build, arguments, path, setting)
        self.vocabulary = self.trainer.model.config.vocab_size
        self.trainer.remove_callback(PrinterCallback)
        self.trainer.add_callback(self.clock)
        if not setting.generate:
            self.resize(setting.tokens)

    def resize(self, tokens: int) -> None:
        """Gives the trainer a batch with this many completion tokens, all distilled."""
        batch = self._batch(max(1, tokens // self.setting.sequences))
        self.trainer._prepare_training_batch = lambda inputs: batch

    def _batch(self, length: int) -> dict[str, Tensor]:
        rows, prompt = self.setting.sequences, self.setting.prompt
        draw = torch.Generator().manual_seed(0)  # the same batch on every side

        def tokens(columns: int) -> Tensor:
            return torch.randint(3, self.vocabulary, (rows, columns), generator=draw)

        student, context, completion = tokens(prompt), tokens(2 * prompt), tokens(length)
        teacher = torch.cat([context, completion], dim=1)
        batch = {
            "prompt_ids": student,
            "prompt_mask": torch.ones_like(student),
            "completion_ids": completion,
            "completion_mask": torch.ones_like(completion),
            "teacher_input_ids": teacher,
            "teacher_attention_mask": torch.ones_like(teacher),
            "self_distillation_mask": torch.ones(rows),
            "rewards": torch.zeros(rows),  # a success would not be distilled
            "advantages": torch.zeros(rows),
        }
        return {name: value.to(self.setting.device) for name, value in batch.items()}

    def step(self, multiplier: str = "information") -> float:
        """One step of `train()`; its seconds.

        Args:
            multiplier: `PGPOConfig`'s, of a trainer of Poise's.
        """
        if multiplier == "distance":
            self.measuring.append(0.0)
        if scale := getattr(self.trainer, "step_scale", None):
            if not self._is_watched:
                self._watch(scale)
            sensitivity = float(multiplier == "information")
            scale.viscosity = replace(scale.viscosity, sensitivity=sensitivity)
            scale.distance = self.distance if multiplier == "distance" else None
        self.trainer.train()
        return self.clock.seconds

    def _watch(self, scale: Any) -> None:
        """Times what the distance is measured by: the policy's readings before and after a step."""

        def timed(read: Callable[[], Any]) -> Callable[[], Any]:
            def look() -> Any:
                begin = self.clock.now()
                found = read()
                self.measuring[-1] += self.clock.now() - begin
                return found

            return look

        scale.policy, scale.policy_again = timed(scale.policy), timed(scale.policy_again)
        self._is_watched = True


def build_trainer(trainer: Any, arguments: Any, path: str, setting: Setting) -> Any:
    """The model with LoRA; data and reward, none succeeds, are asked for where it generates."""
    text = " a" * setting.prompt
    return trainer(
        model=AutoModelForCausalLM.from_pretrained(path, dtype=setting.torch_dtype),
        reward_funcs=lambda completions, **columns: [0.0] * len(completions),
        args=arguments,
        train_dataset=Dataset.from_dict({"prompt": [text] * 2, "privileged_context": [text] * 2}),
        processing_class=AutoTokenizer.from_pretrained(path),
        peft_config=LoraConfig(r=16, lora_alpha=32, target_modules="all-linear"),
    )


def model_path(setting: Setting, folder: str) -> str:
    """Where the model lies; one of another vocabulary is made in the folder.

    It is written and read again, as PEFT takes embeddings that were resized after loading for
    trained, and TRL's EMA callback would copy them in every step.
    """
    path = resolve_model(setting.model)
    if setting.vocabulary is None:
        return path
    resized = os.path.join(folder, f"vocabulary-{setting.vocabulary}")
    if not os.path.isdir(resized):
        model = AutoModelForCausalLM.from_pretrained(path, dtype=setting.torch_dtype)
        model.resize_token_embeddings(setting.vocabulary, mean_resizing=False)
        model.save_pretrained(resized)
        AutoTokenizer.from_pretrained(path).save_pretrained(resized)
    return resized
