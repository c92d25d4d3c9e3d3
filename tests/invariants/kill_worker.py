"""A training run that dies at a moment that is drawn beforehand, as one rank or several."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from peft import LoraConfig
from safetensors.torch import save_file
from transformers import TrainerCallback

from poise import IGAConfig, IGATrainer, PGPOConfig, PGPOTrainer
from tests.engines import fsdp_settings, is_sharded, use_fsdp, whole_weights
from tests.tiny import BRAKE, RUN, iga_run, tiny_dataset, tiny_isomers, vowel_reward

SAVED = {"save_strategy": "steps", "save_steps": 2, "save_total_limit": 2}
_ON_FILES = ("open", "os.mkdir", "os.remove", "os.rename", "os.rmdir", "shutil.rmtree")


class Kill(NamedTuple):
    """When a rank dies: some seconds after it began, or after it touched a file."""

    rank: int
    seconds: float
    files: int | None = None  # the run's files that it touches before

    def prepare(self, folder: Path) -> None:
        """Kills this process when the time has come, and leaves a word of what it was at."""
        if self.rank != int(os.environ.get("RANK", 0)):
            return
        note = folder.with_suffix(".kills").open("a")
        main = threading.main_thread()
        seen: list[str] = []

        def watch(event: str, arguments: tuple[Any, ...]) -> None:
            if event not in _ON_FILES or threading.current_thread() is not main:
                return
            name = str(arguments[0])
            if event in ("open", "os.mkdir", "os.rename") and str(folder) not in name:
                return
            seen.append(f"{event} {name.removeprefix(str(folder))}")
            if len(seen) == self.files:
                note.write(f"{self.rank}: {seen[-1]}\n")
                note.flush()
                self._die()

        if self.files is None:
            note.write(f"{self.rank}: after {self.seconds:.2f} s\n")
            note.flush()
            self._die()
        else:
            sys.addaudithook(watch)

    def _die(self) -> None:
        if self.seconds == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        # Python has no part in this signal: the system ends the process, whatever it is doing.
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.setitimer(signal.ITIMER_REAL, self.seconds)


class _Begin(TrainerCallback):  # type: ignore[misc]
    """A kill counts from here."""

    def __init__(self, begin: Callable[[], None]) -> None:
        self._begin = begin

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._begin()


def train(
    method: str,
    model: str,
    folder: Path,
    kill: Kill | None,
    state_dict_type: str | None = None,
    resume: Any = "auto",
) -> None:
    """Trains, and writes the final weights and the teacher to `<folder>/final.safetensors`.

    With `state_dict_type` it runs under FSDP2, whose checkpoints are of that kind.
    """
    callbacks = [] if kill is None else [_Begin(lambda: kill.prepare(folder))]
    engine: dict[str, Any] = {}
    if state_dict_type is not None:
        use_fsdp()
        engine = fsdp_settings(state_dict_type=state_dict_type)
    trainer = _TRAINERS[method](model, str(folder), engine, callbacks)
    trainer.train(resume_from_checkpoint=resume)
    assert is_sharded(trainer.model) == (state_dict_type is not None)
    weights = whole_weights(trainer.model)
    if method == "pgpo":
        teacher = whole_weights(trainer.accelerator.unwrap_model(trainer.teacher_model))
        weights |= {f"teacher {name}": weight for name, weight in teacher.items()}
    if trainer.is_world_process_zero():
        save_file(weights, folder / "final.safetensors")


def _pgpo(model: str, folder: str, engine: dict[str, Any], callbacks: list[Any]) -> PGPOTrainer:
    own = {
        "output_dir": folder,
        "max_steps": 16,
        "distillation_mode": "full_logits",
        "signal_reference": "running",
        "rho_min": 0.1,
        "steps_per_generation": 2,
    }
    return PGPOTrainer(
        model=model,
        reward_funcs=vowel_reward,
        args=PGPOConfig(**RUN | BRAKE | SAVED | own | engine),
        train_dataset=tiny_dataset(),
        callbacks=callbacks,
    )


def _iga(model: str, folder: str, engine: dict[str, Any], callbacks: list[Any]) -> IGATrainer:
    own = {"output_dir": folder, "max_steps": 16, "per_device_train_batch_size": 6}
    return IGATrainer(
        model=model,
        args=IGAConfig(**iga_run(SAVED | own | engine)),
        train_dataset=tiny_isomers(),
        peft_config=LoraConfig(r=2, target_modules="all-linear", lora_dropout=0.1),
        callbacks=callbacks,
    )


_TRAINERS: dict[str, Callable[..., Any]] = {"pgpo": _pgpo, "iga": _iga}
