"""Writes every logged step as a JSON line into the run folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

METRICS = "metrics.jsonl"


class MetricsLog(TrainerCallback):  # type: ignore[misc]
    """Appends `{"step": ..., **logs}` to `metrics.jsonl` in the output folder.

    A resumed run first drops the lines that the interrupted one wrote after its checkpoint, and a
    line that it did not finish.
    """

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.is_world_process_zero:
            drop_after(Path(args.output_dir) / METRICS, state.global_step)

    def on_log(
        self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **kwargs: Any
    ) -> None:
        if state.is_world_process_zero and logs is not None:
            with (Path(args.output_dir) / METRICS).open("a") as file:
                file.write(json.dumps({"step": state.global_step, **logs}) + "\n")


def drop_after(path: Path, last_step: int) -> None:
    """Keeps the lines of a log up to a step; 0 empties it. A missing file becomes an empty one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    kept = _lines(path, last_step) if last_step > 0 else []
    temporary = path.with_name(f"{path.name}.tmp")  # an interruption here must not lose the log
    temporary.write_text("".join(json.dumps(line) + "\n" for line in kept))
    temporary.replace(path)


def _lines(path: Path, last_step: int) -> list[dict[str, Any]]:
    lines = []
    for text in path.read_text().splitlines() if path.is_file() else []:
        try:
            line = json.loads(text)
        except ValueError:  # the line that the interruption cut
            break
        if line["step"] <= last_step:
            lines.append(line)
    return lines
