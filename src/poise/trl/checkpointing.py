"""Checkpoints that can be trusted, in any of the host's trainers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import Trainer, TrainerCallback

from . import resume
from .checkpoints import latest, refuse_used_folder, resolve_resume, write_manifest
from .contract import rotate_checkpoints


class CheckpointingMixin(Trainer):  # type: ignore[misc]
    """Whole checkpoints, and a resume that finds the sampler where it was.

    With `args.exact_resume` off it is the host's.
    """

    _has_trained = False  # a second `train` of the same trainer is the user's own wish
    _train_sampler: Any = None  # an iterable dataset has none

    def _save_state(self, folder: Path) -> None:
        """Adds to a checkpoint what the host forgets, on every rank."""
        raise NotImplementedError

    def _load_state(self, folder: Path) -> None:
        """Takes what `_save_state` has written."""
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
        resume.save_json(folder / self._log_file, self._pending_log())
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
            try:
                self._load_state(Path(checkpoint))
                self._load_pending_log(resume.load_json(Path(checkpoint) / self._log_file))
            except (FileNotFoundError, KeyError) as error:
                raise ValueError(
                    f"cannot resume from {checkpoint}, which an older Poise wrote: expected "
                    f"{getattr(error, 'filename', None) or error}, found none; start a new run in "
                    "another output_dir"
                ) from error

    @property
    def _log_file(self) -> str:
        return resume.log_file(self.accelerator.process_index)

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
        self.add_callback(_PendingLoss(self, log["loss"], log["mean_loss"], log["last_logged"]))

    def _get_train_sampler(self, dataset: Any = None) -> Any:
        self._train_sampler = super()._get_train_sampler(dataset)
        return self._train_sampler

    def _init_training_state(
        self, max_steps: int, num_update_steps_per_epoch: int, num_train_epochs: int, *args: Any
    ) -> tuple[int, int]:
        """The host's; then brings the sampler to the permutation of the epoch that is resumed.

        A sampler with a generator of its own draws one permutation per epoch from it, and the host
        starts it anew on resume. (Accelerate's, without one, is seeded by the epoch's number.)
        """
        epochs, steps = super()._init_training_state(
            max_steps, num_update_steps_per_epoch, num_train_epochs, *args
        )
        if self.args.exact_resume and self.state.global_step >= max_steps:
            return num_train_epochs, 0  # the run is over; the host would take one step more
        generator = getattr(self._train_sampler, "generator", None)
        if self.args.exact_resume and generator is not None:
            for _ in range(epochs):
                torch.randperm(self._train_sampler.num_samples, generator=generator)
        return epochs, steps


class _PendingLoss(TrainerCallback):  # type: ignore[misc]
    """Hands the losses since the last log back, once the host has set their sum to zero."""

    def __init__(
        self, trainer: CheckpointingMixin, loss: float, mean_loss: float, last_logged: int
    ) -> None:
        self._trainer, self._is_handed_back = trainer, False
        self._loss, self._mean_loss, self._last_logged = loss, mean_loss, last_logged

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self._is_handed_back:  # a second `train` of the same trainer
            return
        self._is_handed_back = True
        self._trainer._tr_loss += self._loss
        self._trainer._globalstep_last_logged = self._last_logged
        self._trainer._total_loss_scalar -= self._mean_loss  # a run's mean is of its own steps
