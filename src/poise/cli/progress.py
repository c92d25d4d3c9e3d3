"""The progress bar of training: a few figures beside it, all of them in the run folder."""

from __future__ import annotations

from typing import Any

from transformers import ProgressCallback

_SHOWN = {
    "reward": "self_distillation/reward_mean",
    "signal": "pgpo/information_signal",
    "step x": "pgpo/multiplier",
    "entropy": "pgpo/student_entropy",
    "accuracy": "mean_token_accuracy",
    "agreement": "iga/agreement",
    "mask": "iga/mask_mean",
}


class TrainingProgress(ProgressCallback):  # type: ignore[misc]
    """transformers' bar; the only change is that logs become its postfix instead of lines."""

    def on_log(
        self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **kwargs: Any
    ) -> None:
        if self.training_bar is None or logs is None:
            return
        figures = {name: logs[key] for name, key in _SHOWN.items() if logs.get(key) is not None}
        if figures:
            self.training_bar.set_postfix({name: f"{value:.3g}" for name, value in figures.items()})


def use_training_progress(trainer: Any) -> None:
    """Puts the bar in the place of transformers' own, where that is on."""
    if trainer.pop_callback(ProgressCallback) is not None:
        trainer.add_callback(TrainingProgress())
