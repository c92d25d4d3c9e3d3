"""What a PGPO run logs of a step, and what its checkpoints keep beside TRL's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from accelerate.logging import get_logger

from ..trl import checkpoints
from ..trl.contract import SDPOTrainer
from ..trl.guards import CollapseMonitor, NonFiniteGuard
from .config import PGPOConfig
from .distance import StepTokens

logger = get_logger(__name__)


class PGPOStateMixin(checkpoints.CheckpointingMixin, SDPOTrainer):  # type: ignore[misc]
    """Logs a step; saves and restores the method's state.

    Needs `_prepare_state` before TRL's `__init__`.
    """

    _method = "pgpo"
    standstill_patience = 20  # steps in a row after which a brake that is not released is named

    def _prepare_state(self, args: PGPOConfig) -> None:
        self.step_scale: Any = None  # a StepScale, made with the optimizer
        self.nonfinite_guard = NonFiniteGuard(args.max_nonfinite_steps)
        self.collapse_monitor = CollapseMonitor()
        self._standing = 0  # steps in a row that the signal has cut to next to nothing
        self._step_tokens: StepTokens | None = None

    def _log_step(self) -> None:
        record, metrics = self.step_scale.last, self._metrics["train"]
        figures = {
            "information_signal": record.signal,
            "target_distance": record.asked,
            "distance": record.moved,
            "distance_rounding": record.rounding or None,
            "skipped_steps": self.nonfinite_guard.total,
        }
        if self._step_tokens is None or record.asked is not None:  # a step that was taken
            rate = self._get_learning_rate() * record.multiplier
            figures = {"multiplier": record.multiplier, "effective_learning_rate": rate} | figures
        if record.signal is not None:
            self._warn_of_standstill(record.factor)
        if self.args.collapse_warning:
            sentences = self.collapse_monitor.update(self._watched)
            figures["collapse_warnings"] = len(sentences)
            for sentence in sentences:
                logger.warning("%s", sentence)
        for name, value in figures.items():
            if value is not None:
                metrics[f"pgpo/{name}"].append(value)

    def _warn_of_standstill(self, factor: float) -> None:
        """Names a brake that is not released, once: the factor is at `rho_min`, as far as that is a
        tenth at most, or at a hundredth, since exp(-alpha) may be above `rho_min` for good.

        Choice: ours, as braking is. No braked run of `experiments/collapse_confirm`, healthy or
        not, had more than 5 such steps in a row; those of `collapse_remedies` that stood still
        have 80.
        """
        is_cut = factor <= min(max(self.args.rho_min, 0.01), 0.1)
        self._standing = self._standing + 1 if is_cut else 0
        if self._standing == self.standstill_patience:
            logger.warning(
                "For %d steps in a row the signal has cut the step to next to nothing "
                "(now %.2g of it): the run hardly learns. If it has learned what its teacher "
                "knows, stop it. Else look at what the teacher is shown (feedback, "
                "demonstrations), lower sensitivity, or raise target_distance or the "
                "learning rate.",
                self._standing,
                factor,
            )

    # A checkpoint: what TRL forgets in it.

    def _save_state(self, folder: Path) -> None:
        file = checkpoints.rollouts_file(self.accelerator.process_index)
        checkpoints.save_rollouts(folder / file, self._buffered_inputs)
        if self.teacher is not None:
            plugin = self.accelerator.state.fsdp_plugin if self.is_fsdp_enabled else None
            in_shards = plugin is not None and "SHARDED" in str(plugin.state_dict_type)
            self.teacher.save(folder, in_shards=in_shards, keep=self.args.should_save)
        if not self.args.should_save:
            return
        state = {
            "step": self._step,
            "multiplier": self.step_scale.state_dict(),
            "skipped_steps": self.nonfinite_guard.total,
            "standstill": self._standing,
            "collapse": self.collapse_monitor.state_dict(),
            "diagnostics": {mode: dict(c) for mode, c in self._diagnostic_counters.items()},
            "teacher": None if self.teacher is None else self.teacher.progress(),
        }
        checkpoints.save_json(folder / checkpoints.STATE, state)

    def _state_files(self, rank: int) -> tuple[str, ...]:
        return checkpoints.STATE, checkpoints.rollouts_file(rank)

    def _load_state(self, folder: Path) -> None:
        state = checkpoints.load_json(folder / checkpoints.STATE)
        self._step = state["step"]
        self.step_scale.load_state_dict(state["multiplier"])
        self.nonfinite_guard.total = state["skipped_steps"]
        self._standing = state["standstill"]
        self.collapse_monitor.load_state_dict(state["collapse"])
        for mode, counters in state["diagnostics"].items():
            self._diagnostic_counters[mode].update(counters)
        file = checkpoints.rollouts_file(self.accelerator.process_index)
        self._buffered_inputs = checkpoints.load_rollouts(folder / file, self.accelerator.device)
        if self.teacher is not None:
            self.teacher.load_progress(state["teacher"])
            self.teacher.load(folder)

    def _load_best_model(self) -> None:
        """Transformers'; then the teacher of that step."""
        super()._load_best_model()
        if self.teacher is not None and self.args.exact_resume:
            self.teacher.load(Path(self.state.best_model_checkpoint))
        elif self.teacher is not None:
            logger.warning(
                "The model is that of the best step, its teacher that of the last one: "
                "checkpoints hold no teacher with exact_resume=False."
            )
