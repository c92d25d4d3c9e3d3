"""Checkpoints that can be trusted, and a resumed run that equals an uninterrupted one.

A manifest (`manifest.py`) is written last and checked before a resume. Beside the files of
transformers, each rank keeps its figures that are not logged yet, and what the trainer's
`_save_state` adds.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import DistributedType, broadcast_object_list, gather_object, is_peft_model
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException
from transformers import Trainer, TrainerCallback
from transformers.trainer_utils import get_last_checkpoint

from . import manifest
from .preflight import check_best_metric

STATE = "poise_state.json"
TEACHER = "poise_teacher.safetensors"
TEACHER_SHARDS = "poise_teacher"  # a folder in its place, of a sharded teacher

Rollouts = list[dict[str, Tensor | None]]


# A rank's own files: rollout buffer, warm starts of the projection, what it knows of domains and
# method, figures that are not logged yet.
rollouts_file = "poise_rollouts_{}.safetensors".format
warm_starts_file = "poise_warm_starts_{}.safetensors".format
state_file = "poise_state_{}.json".format
log_file = "poise_log_{}.json".format


class CheckpointWriteError(OSError):
    """A checkpoint could not be written, for want of room most often."""


class LostRankError(RuntimeError):
    """Another rank has ended before its time."""

    exit_status = 3  # of a command


class CheckpointingMixin(Trainer):  # type: ignore[misc]
    """Writes whole checkpoints, and resumes with the sampler where it was.

    With `args.exact_resume` off it is transformers' trainer.
    """

    _figures: tuple[str, ...]  # of an evaluation, beside transformers'
    _method: str  # of the checkpoints, which another method cannot resume from
    _has_trained = False  # a second `train` of the same trainer is the user's own wish
    _train_sampler: Any = None  # an iterable dataset has none

    # Each method's own: adds to a checkpoint what transformers forgets, on every rank; restores it;
    # and names the files that a rank reads.
    _save_state: Callable[[Path], None]
    _load_state: Callable[[Path], None]
    _state_files: Callable[[int], tuple[str, ...]]

    def train(
        self, resume_from_checkpoint: str | bool | None = None, *args: Any, **kwargs: Any
    ) -> Any:
        """TRL's; `resume_from_checkpoint` may also be a run folder, or "auto": the newest whole
        checkpoint if there is one, else a fresh start. Damaged checkpoints are named and passed
        over for the one before. All ranks take the main process's choice.

        Raises:
            ValueError: nothing to resume from; the named checkpoint is damaged, was written by
                another method, engine or number of ranks, or lacks a file on the disk of a rank; a
                new run would start in the folder of another; and as `check_best_metric`.
            LostRankError: another rank has ended.
        """
        check_best_metric(self, self._figures)
        run = Path(self.args.output_dir)
        if self.args.exact_resume:
            resume_from_checkpoint = self._agree_on_resume(resume_from_checkpoint, run)
            self._has_trained = True
        elif resume_from_checkpoint == manifest.AUTO:
            resume_from_checkpoint = get_last_checkpoint(str(run)) if run.is_dir() else None
        # PEFT is to read an adapter into the weights that are there. By default it puts float32
        # ones in the place of bfloat16's, which a run that goes on would differ by, and of which
        # an optimizer that was made before knows nothing.
        model: Any = self.model
        is_in_place = self.args.exact_resume and is_peft_model(model)
        if is_in_place:
            model.load_adapter = partial(model.load_adapter, autocast_adapter_dtype=False)
        try:
            return super().train(resume_from_checkpoint, *args, **kwargs)
        except RuntimeError as error:
            if self.accelerator.num_processes == 1 or not _is_lost_connection(error):
                raise
            rank, step = self.accelerator.process_index, self.state.global_step
            raise LostRankError(
                f"rank {rank} stopped at step {step} because another rank has ended, whose own "
                f"message says why; {self._how_to_go_on()}"
            ) from error
        finally:
            if is_in_place:
                del model.load_adapter

    def _agree_on_resume(self, resume: str | bool | None, run: Path) -> str | None:
        """The main process reads and checks; others, with other disks perhaps, could differ."""
        choice: list[Any] = [None]
        if self.accelerator.is_main_process:
            try:
                choice = [manifest.resolve_resume(resume, run)]
                if choice[0] is not None:
                    self._refuse_of_another_kind(choice[0])
                elif not self._has_trained:
                    manifest.refuse_used_folder(run)
            except (ValueError, OSError) as error:
                choice = [error]
        (found,) = broadcast_object_list(choice)
        if isinstance(found, ValueError | OSError):
            raise found
        if found is None:
            return None
        self._refuse_missing_files(found)
        return str(found)

    def _kind_of_checkpoint(self) -> dict[str, Any]:
        """What has to be the same for a checkpoint to be read, and a run to go on as it was."""
        state, engine = self.accelerator.state, "DDP"  # of one rank, too
        if state.distributed_type == DistributedType.FSDP:
            engine = f"FSDP with {state.fsdp_plugin.state_dict_type.name}"
        if state.distributed_type == DistributedType.DEEPSPEED:
            engine = f"DEEPSPEED with ZeRO-{state.deepspeed_plugin.zero_stage}"
        ranks = self.accelerator.num_processes
        return {"method": self._method, "engine": engine, "ranks": ranks}

    def _refuse_of_another_kind(self, checkpoint: Path) -> None:
        """A checkpoint of another method or engine would be read in part, without a word."""
        saved = manifest.read_manifest(checkpoint)["run"]
        for name, value in self._kind_of_checkpoint().items():
            if (found := saved.get(name)) != value:
                raise ValueError(
                    f"cannot resume from {checkpoint}: it was written with {name} {found}, this "
                    f"run has {name} {value}; go on as it was written, or choose another output_dir"
                )

    def _refuse_missing_files(self, checkpoint: Path) -> None:
        """The main process has read its own disk; every rank looks at its own, where transformers
        passes over an optimizer or random numbers that are not there."""
        rank, ranks = self.accelerator.process_index, self.accelerator.num_processes
        rng = f"rng_state_{rank}.pth" if ranks > 1 else "rng_state.pth"
        lacking = manifest.lacking(checkpoint, (*self._state_files(rank), log_file(rank), rng))
        if missing := gather_object([f"{name} (rank {rank})" for name in lacking]):
            raise ValueError(
                f"cannot resume from {checkpoint}: expected {', '.join(missing)} there on the disk "
                "of that rank, found none or of another size; copy the files to it, or resume from "
                "a checkpoint that is whole on all machines"
            )

    def _how_to_go_on(self) -> str:
        if checkpoint := self._last_checkpoint():
            return f"go on from {checkpoint} by resume_from_checkpoint=True"
        return "no checkpoint was written yet: start the run again"

    def _last_checkpoint(self) -> str | None:
        checkpoint = manifest.latest(Path(self.args.output_dir))
        return None if checkpoint is None else str(checkpoint)

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        if not self.args.exact_resume:
            return super()._save_checkpoint(model, trial)
        run = Path(self._get_output_dir(trial=trial))
        folder = run / f"checkpoint-{self.state.global_step}"
        # Older checkpoints go only when the new one is whole.
        limit, self.args.save_total_limit = self.args.save_total_limit, None
        try:
            if self.args.should_save:
                manifest.begin_checkpoint(folder)
            self.accelerator.wait_for_everyone()
            super()._save_checkpoint(model, trial)
            self._save_state(folder)
            save_json(folder / log_file(self.accelerator.process_index), self._pending_log())
            self.accelerator.wait_for_everyone()
            if self.args.should_save:
                manifest.write_manifest(folder, self._kind_of_checkpoint())
        except (OSError, RuntimeError, SafetensorError, CheckpointException) as error:
            if not _is_failed_write(error):
                raise
            raise CheckpointWriteError(self._what_is_lost(folder, error)) from error
        finally:
            self.args.save_total_limit = limit
        if self.args.should_save:
            manifest.rotate(run, limit, folder, self.state.best_model_checkpoint)
        self.accelerator.wait_for_everyone()

    def _what_is_lost(self, folder: Path, error: BaseException) -> str:
        needed, free = "the size of a checkpoint", shutil.disk_usage(folder.parent).free / 1e6
        if last := manifest.latest(Path(self.args.output_dir)):
            sizes = (size for size, _ in manifest.read_manifest(last)["files"].values())
            needed = f"{sum(sizes) / 1e6:.0f} MB"
        return (
            f"{folder} could not be written ({' '.join(str(error).split())}): {free:.0f} MB are "
            f"free there, about {needed} needed. It is not whole and may be deleted; make room, "
            f"then {self._how_to_go_on()}"
        )

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if self.args.device.type == "cpu":
            # Older transformers loads onto a rank's "cpu:0", a place that torch.load does not know.
            self.args.__dict__["_setup_devices"] = torch.device("cpu")
        super()._load_optimizer_and_scheduler(checkpoint)
        if checkpoint is not None and self.args.exact_resume:
            self._load_state(Path(checkpoint))
            log = load_json(Path(checkpoint) / log_file(self.accelerator.process_index))
            for mode, figures in log["metrics"].items():
                self._metrics[mode].update(figures)
            self.add_callback(_PendingLoss(self, log))

    def _issue_warnings_after_load(self, load_result: Any) -> None:
        """Transformers', but for a weight that shares its memory with one that was loaded: of tied
        embeddings a checkpoint has one name alone."""
        names = dict(self.model.named_parameters(remove_duplicate=False))
        missing = load_result.missing_keys
        loaded = {id(weight) for name, weight in names.items() if name not in missing}
        missing[:] = [name for name in missing if id(names.get(name)) not in loaded]
        super()._issue_warnings_after_load(load_result)

    def _pending_log(self) -> dict[str, Any]:
        """What was seen since the last log: TRL's figures, and the sum of the losses, this rank's
        and the mean over ranks, which TRL adds to the run's total."""
        return {
            "metrics": {mode: dict(figures) for mode, figures in self._metrics.items()},
            "loss": self._tr_loss.item(),
            "mean_loss": self.accelerator.gather(self._tr_loss).mean().item(),
            "last_logged": self._globalstep_last_logged,
        }

    def _get_train_sampler(self, dataset: Any = None) -> Any:
        self._train_sampler = super()._get_train_sampler(dataset)
        return self._train_sampler

    def _init_training_state(
        self, max_steps: int, num_update_steps_per_epoch: int, num_train_epochs: int, *args: Any
    ) -> tuple[int, int]:
        """Transformers'; then brings the sampler to the permutation of the epoch that is resumed.

        A sampler with its own generator draws one permutation an epoch from it, and transformers
        starts it anew on resume. (Accelerate's, without one, is seeded by the epoch's number.)
        """
        epochs, steps = super()._init_training_state(
            max_steps, num_update_steps_per_epoch, num_train_epochs, *args
        )
        if not self.args.exact_resume:
            return epochs, steps
        if self.state.global_step >= max_steps:
            return num_train_epochs, 0  # the run is over; transformers would take one step more
        if (generator := getattr(self._train_sampler, "generator", None)) is not None:
            for _ in range(epochs):
                torch.randperm(self._train_sampler.num_samples, generator=generator)
        return epochs, steps


# torch and safetensors hand on what the system said as text.
_FAILED_WRITES = ("inline_container", "PytorchStreamWriter", "iostream error", "os error")
# What gloo, the store and NCCL say of a peer that is gone; their other errors are a rank's own.
_LOST = (
    *("Connection closed by peer", "Connection reset by peer", "Broken pipe", "Socket Timeout"),
    *("Connection was likely closed", "ncclRemoteError"),
)


def _is_failed_write(error: BaseException) -> bool:
    if isinstance(error, CheckpointException):  # of shards, with each rank's own
        return any(_is_failed_write(failure) for failure, _ in error.failures.values())
    if isinstance(error, OSError):  # without a number, one of the hub's
        return error.errno is not None
    return any(text in str(error) for text in _FAILED_WRITES)


def _is_lost_connection(error: RuntimeError) -> bool:
    return any(text in str(error) for text in _LOST)


class _PendingLoss(TrainerCallback):  # type: ignore[misc]
    """Hands the losses since the last log back, once transformers has set their sum to zero."""

    def __init__(self, trainer: CheckpointingMixin, log: dict[str, Any]) -> None:
        self._trainer, self._log = trainer, log

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        log, self._log = self._log, {}
        if log:  # not in a second `train` of the same trainer
            self._trainer._tr_loss += log["loss"]
            self._trainer._globalstep_last_logged = log["last_logged"]
            self._trainer._total_loss_scalar -= log["mean_loss"]  # a run's mean: its own steps'


# The files of a checkpoint.


def save_rollouts(path: Path, rollouts: Rollouts | None) -> None:
    """Writes the buffered micro-batches; an empty buffer is a file without tensors."""
    tensors = {
        # Micro-batches are slices of one tensor; safetensors refuses two names for one memory.
        f"{index}.{name}": tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
        for index, batch in enumerate(rollouts or [])
        for name, tensor in batch.items()
        if tensor is not None
    }
    save_file(tensors, path)


def load_rollouts(path: Path, device: Any) -> Rollouts | None:
    """Reads `save_rollouts`' file onto a device."""
    batches: dict[int, dict[str, Tensor | None]] = {}
    for key, tensor in load_file(path).items():
        index, name = key.split(".", 1)
        batches.setdefault(int(index), {})[name] = tensor.to(device)
    return [batches[index] for index in sorted(batches)] or None


def save_json(path: Path, state: dict[str, Any]) -> None:
    """Writes plain values."""
    path.write_text(json.dumps(state, indent=1))


def load_json(path: Path) -> dict[str, Any]:
    """Reads plain values."""
    return dict(json.loads(path.read_text()))
