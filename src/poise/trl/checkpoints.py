"""Checkpoints that can be trusted, and a resumed run that equals an uninterrupted one.

A manifest is written last and checked before a resume. Beside the files of transformers, each rank
keeps its figures that are not logged yet, and what the trainer's `_save_state` adds.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import Trainer, TrainerCallback

from .contract import rotate_checkpoints

logger = logging.getLogger(__name__)

MANIFEST = "poise_manifest.json"
STATE = "poise_state.json"
TEACHER = "poise_teacher.safetensors"
TEACHER_SHARDS = "poise_teacher"  # a folder in its place, of a sharded teacher
_FORMAT = 1
_CHECKPOINT = re.compile(r"checkpoint-(\d+)")

Rollouts = list[dict[str, Tensor | None]]


def rollouts_file(rank: int) -> str:
    """Name of a rank's rollout buffer."""
    return f"poise_rollouts_{rank}.safetensors"


def warm_starts_file(rank: int) -> str:
    """Name of a rank's warm starts of the projection."""
    return f"poise_warm_starts_{rank}.safetensors"


def state_file(rank: int) -> str:
    """Name of what a rank knows of domains and method."""
    return f"poise_state_{rank}.json"


def log_file(rank: int) -> str:
    """Name of a rank's figures that are not logged yet."""
    return f"poise_log_{rank}.json"


class DamagedCheckpointError(ValueError):
    """A checkpoint that is incomplete, or whose files are not those that were written."""


class CheckpointingMixin(Trainer):  # type: ignore[misc]
    """Writes whole checkpoints, and resumes with the sampler where it was.

    With `args.exact_resume` off it is transformers' trainer.
    """

    _has_trained = False  # a second `train` of the same trainer is the user's own wish
    _train_sampler: Any = None  # an iterable dataset has none

    def _save_state(self, folder: Path) -> None:
        """Adds to a checkpoint what transformers forgets, on every rank."""
        raise NotImplementedError

    def _load_state(self, folder: Path) -> None:
        """Restores what `_save_state` has written."""
        raise NotImplementedError

    def _check_checkpoint(self, checkpoint: Path) -> None:
        """Raises ValueError for a checkpoint that lacks what this run is to restore."""

    def train(
        self, resume_from_checkpoint: str | bool | None = None, *args: Any, **kwargs: Any
    ) -> Any:
        """TRL's; `resume_from_checkpoint` may also be a run folder, and damaged checkpoints are
        named and passed over for the one before.

        Raises:
            ValueError: nothing to resume from, the named checkpoint is damaged or lacks what this
                run is to restore, or a new run would start in the folder of another.
        """
        if self.args.exact_resume:
            run = Path(self.args.output_dir)
            checkpoint = resolve_resume(resume_from_checkpoint, run)
            if checkpoint is None and not self._has_trained:
                refuse_used_folder(run)
            if checkpoint is not None:
                self._check_checkpoint(checkpoint)
            self._has_trained = True
            resume_from_checkpoint = None if checkpoint is None else str(checkpoint)
        return super().train(resume_from_checkpoint, *args, **kwargs)

    def _last_checkpoint(self) -> str | None:
        checkpoint = latest(Path(self.args.output_dir))
        return None if checkpoint is None else str(checkpoint)

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        if not self.args.exact_resume:
            return super()._save_checkpoint(model, trial)
        # Older checkpoints go only when the new one is whole.
        limit, self.args.save_total_limit = self.args.save_total_limit, None
        try:
            super()._save_checkpoint(model, trial)
        finally:
            self.args.save_total_limit = limit
        run = Path(self._get_output_dir(trial=trial))
        folder = run / f"checkpoint-{self.state.global_step}"
        self._save_state(folder)
        save_json(folder / log_file(self.accelerator.process_index), self._pending_log())
        self.accelerator.wait_for_everyone()
        if self.args.should_save:
            write_manifest(folder)
            rotate_checkpoints(
                output_dir=str(run),
                save_total_limit=limit,
                best_model_checkpoint=self.state.best_model_checkpoint,
                use_mtime=True,
            )
        self.accelerator.wait_for_everyone()

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if self.args.device.type == "cpu":
            # Older transformers loads onto a rank's "cpu:0", a place that torch.load does not know.
            self.args.__dict__["_setup_devices"] = torch.device("cpu")
        super()._load_optimizer_and_scheduler(checkpoint)
        if checkpoint is not None and self.args.exact_resume:
            log = Path(checkpoint) / log_file(self.accelerator.process_index)
            try:
                self._load_state(Path(checkpoint))
                self._load_pending_log(load_json(log))
            except (FileNotFoundError, KeyError) as error:
                raise ValueError(
                    f"cannot resume from {checkpoint}, which an older Poise wrote: expected "
                    f"{getattr(error, 'filename', None) or error}, found none; start a new run in "
                    "another output_dir"
                ) from error

    def _pending_log(self) -> dict[str, Any]:
        """What was seen since the last log: TRL's figures, and the sum of the losses, this rank's
        and the mean over ranks, which TRL adds to the run's total."""
        return {
            "metrics": {mode: dict(figures) for mode, figures in self._metrics.items()},
            "loss": self._tr_loss.item(),
            "mean_loss": self.accelerator.gather(self._tr_loss).mean().item(),
            "last_logged": self._globalstep_last_logged,
        }

    def _load_pending_log(self, log: dict[str, Any]) -> None:
        for mode, figures in log["metrics"].items():
            self._metrics[mode].update(figures)
        self.add_callback(_PendingLoss(self, log))

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
        if self.args.exact_resume and self.state.global_step >= max_steps:
            return num_train_epochs, 0  # the run is over; transformers would take one step more
        generator = getattr(self._train_sampler, "generator", None)
        if self.args.exact_resume and generator is not None:
            for _ in range(epochs):
                torch.randperm(self._train_sampler.num_samples, generator=generator)
        return epochs, steps


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


# Which checkpoint to trust.


def write_manifest(checkpoint: Path) -> None:
    """Lists every file of a complete checkpoint with size and SHA-256, atomically and last."""
    manifest, temporary = checkpoint / MANIFEST, checkpoint / f"{MANIFEST}.tmp"
    files = {
        path.relative_to(checkpoint).as_posix(): {
            "bytes": path.stat().st_size,
            "sha256": _digest(path),
        }
        for path in sorted(checkpoint.rglob("*"))
        if path.is_file() and path not in (manifest, temporary)
    }
    with temporary.open("w") as file:
        json.dump({"format": _FORMAT, "files": files}, file, indent=1)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(manifest)


def verify(checkpoint: Path) -> None:
    """Checks a checkpoint against its manifest.

    Raises:
        DamagedCheckpointError: no manifest, a file missing, or one with another content.
    """
    for name, (size, digest) in _read_manifest(checkpoint).items():
        path = checkpoint / name
        if not path.is_file():
            raise DamagedCheckpointError(f"{path} is missing")
        if (found := path.stat().st_size) != size:
            raise DamagedCheckpointError(f"{path} has {found} bytes, expected {size}")
        if _digest(path) != digest:
            raise DamagedCheckpointError(f"{path} does not have the content that was written")


def _read_manifest(checkpoint: Path) -> dict[str, tuple[int, str]]:
    path = checkpoint / MANIFEST
    try:
        manifest = json.loads(path.read_text())
        version = manifest["format"]
        entries = manifest["files"] if version == _FORMAT else {}
        files = {name: (entry["bytes"], entry["sha256"]) for name, entry in entries.items()}
    except FileNotFoundError:
        raise DamagedCheckpointError(
            f"{checkpoint} has no {MANIFEST}: it was not written to its end, or not by Poise"
        ) from None
    # The manifest may be damaged as well: not JSON, or JSON of another shape.
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DamagedCheckpointError(f"{path} is unreadable: {error!r}") from None
    if version != _FORMAT:
        raise DamagedCheckpointError(f"{path} has format {version!r}, expected {_FORMAT}")
    return files


def newest_valid(run: Path) -> Path:
    """The newest checkpoint of a run that passes `verify`; names those that it passes over.

    Raises:
        ValueError: the folder has no checkpoint, or no whole one.
    """
    found = _checkpoints(run)
    if not found:
        raise ValueError(
            f"cannot resume: {run} holds no folder checkpoint-<step>; start the run without "
            "resume_from_checkpoint"
        )
    faults = []
    for checkpoint in found:
        try:
            verify(checkpoint)
            return checkpoint
        except DamagedCheckpointError as fault:
            logger.warning("Passing over a damaged checkpoint: %s", fault)
            faults.append(str(fault))
    raise DamagedCheckpointError("cannot resume, no checkpoint is whole: " + "; ".join(faults))


def resolve_resume(resume: bool | str | None, run: Path) -> Path | None:
    """From `resume_from_checkpoint` to a checkpoint that can be trusted.

    Args:
        resume: True for the newest whole checkpoint of the run; a checkpoint folder; a run folder;
            None or False for a fresh start.
        run: the output folder.

    Raises:
        ValueError: nothing to resume from.
        DamagedCheckpointError: the named checkpoint is damaged.
    """
    if resume is None or resume is False:
        return None
    folder = run if resume is True else Path(resume)
    if not folder.is_dir():
        raise ValueError(f"cannot resume: {folder} is not a folder")
    if not _CHECKPOINT.fullmatch(folder.name):
        return newest_valid(folder)
    verify(folder)
    return folder


def refuse_used_folder(run: Path) -> None:
    """A run folder holds one run; a new one in it would leave two runs' checkpoints side by side.

    Raises:
        ValueError: the folder has a checkpoint.
    """
    if (checkpoint := latest(run)) is not None:
        raise ValueError(
            f"{run} holds the checkpoints of a run ({checkpoint.name}); go on with it by "
            "resume_from_checkpoint=True, or choose another output_dir"
        )


def latest(run: Path) -> Path | None:
    """The newest checkpoint folder that was written to its end, or None."""
    return next((path for path in _checkpoints(run) if (path / MANIFEST).is_file()), None)


def _checkpoints(run: Path) -> list[Path]:
    steps = {
        int(match[1]): path
        for path in (run.iterdir() if run.is_dir() else ())
        if path.is_dir() and (match := _CHECKPOINT.fullmatch(path.name))
    }
    return [steps[step] for step in sorted(steps, reverse=True)]


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


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
    state: dict[str, Any] = json.loads(path.read_text())
    return state
