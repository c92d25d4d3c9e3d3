"""A resumed run that equals an uninterrupted one, from checkpoints that can be trusted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from . import resume
from ._host import SDPOTrainer, rotate_checkpoints
from .checkpoints import latest, refuse_used_folder, resolve_resume, write_manifest
from .teacher import EMATeacher


class ExactResumeMixin(SDPOTrainer):  # type: ignore[misc]
    """Adds to each checkpoint what the host forgets."""

    ema_teacher: EMATeacher | None = None
    _has_trained = False  # a second `train` of the same trainer is the user's own wish
    _train_sampler: Any = None  # an iterable dataset has none

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
                resume.check_fits(
                    checkpoint,
                    ranks=self.accelerator.num_processes,
                    has_ema_teacher=self.ema_teacher is not None,
                )
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

    def _save_state(self, folder: Path) -> None:
        rank = self.accelerator.process_index
        resume.save_rollouts(folder / resume.rollouts_file(rank), self._buffered_inputs)
        if not self.args.should_save:
            return
        resume.save_json(
            folder / resume.STATE,
            {
                "step": self._step,
                "multiplier": self.step_scale.state_dict(),
                "skipped_steps": self.nonfinite_guard.total,
                "collapse": self.collapse_monitor.state_dict(),
                "diagnostics": {mode: dict(c) for mode, c in self._diagnostic_counters.items()},
            },
        )
        if self.ema_teacher is not None:
            save_file(self.ema_teacher.state_dict(), folder / resume.TEACHER)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        super()._load_optimizer_and_scheduler(checkpoint)
        if checkpoint is not None and self.args.exact_resume:
            self._load_state(Path(checkpoint))

    def _load_state(self, folder: Path) -> None:
        state = resume.load_json(folder / resume.STATE)
        self._step = state["step"]
        self.step_scale.load_state_dict(state["multiplier"])
        self.nonfinite_guard.total = state["skipped_steps"]
        self.collapse_monitor.load_state_dict(state["collapse"])
        for mode, counters in state["diagnostics"].items():
            self._diagnostic_counters[mode].update(counters)
        file = folder / resume.rollouts_file(self.accelerator.process_index)
        self._buffered_inputs = resume.load_rollouts(file, self.accelerator.device)
        if self.ema_teacher is not None:
            self.ema_teacher.load_state_dict(load_file(folder / resume.TEACHER))

    def _get_train_sampler(self, dataset: Any = None) -> Any:
        self._train_sampler = super()._get_train_sampler(dataset)
        return self._train_sampler

    def _init_training_state(
        self, max_steps: int, num_update_steps_per_epoch: int, num_train_epochs: int, *args: Any
    ) -> tuple[int, int]:
        """The host's; then brings the sampler to the permutation of the epoch that is resumed.

        The host draws one permutation per epoch from one generator, and starts it anew on resume.
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
