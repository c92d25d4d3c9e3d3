"""A resumed run that equals an uninterrupted one, from checkpoints that can be trusted."""

from __future__ import annotations

from pathlib import Path

from accelerate.logging import get_logger
from safetensors.torch import load_file, save_file

from ..trl import resume
from ..trl.checkpointing import CheckpointingMixin
from ..trl.contract import SDPOTrainer
from .teacher import Teacher

logger = get_logger(__name__)


class ExactResumeMixin(CheckpointingMixin, SDPOTrainer):  # type: ignore[misc]
    """Adds to each checkpoint what the host forgets."""

    teacher: Teacher | None = None  # one that changes in a run

    def _check_checkpoint(self, checkpoint: Path) -> None:
        resume.check_fits(
            checkpoint,
            ranks=self.accelerator.num_processes,
            has_teacher=self.teacher is not None,
        )

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
                "standstill": self.standstill_guard.steps,
                "collapse": self.collapse_monitor.state_dict(),
                "diagnostics": {mode: dict(c) for mode, c in self._diagnostic_counters.items()},
                "teacher": None if self.teacher is None else self.teacher.progress(),
            },
        )
        if self.teacher is not None:
            save_file(self.teacher.state_dict(), folder / resume.TEACHER)

    def _load_state(self, folder: Path) -> None:
        state = resume.load_json(folder / resume.STATE)
        self._step = state["step"]
        self.step_scale.load_state_dict(state["multiplier"])
        self.nonfinite_guard.total = state["skipped_steps"]
        self.standstill_guard.steps = state["standstill"]
        self.collapse_monitor.load_state_dict(state["collapse"])
        for mode, counters in state["diagnostics"].items():
            self._diagnostic_counters[mode].update(counters)
        file = folder / resume.rollouts_file(self.accelerator.process_index)
        self._buffered_inputs = resume.load_rollouts(file, self.accelerator.device)
        if self.teacher is not None:
            self.teacher.load_progress(state["teacher"])
            self.teacher.load_state_dict(load_file(folder / resume.TEACHER))

    def _load_best_model(self) -> None:
        """The host's; then the teacher of that step."""
        super()._load_best_model()
        if self.teacher is None:
            return
        if self.args.exact_resume:
            file = Path(self.state.best_model_checkpoint) / resume.TEACHER
            self.teacher.load_state_dict(load_file(file))
        else:
            logger.warning(
                "The model is that of the best step, its teacher that of the last one: "
                "checkpoints hold no teacher with exact_resume=False."
            )
