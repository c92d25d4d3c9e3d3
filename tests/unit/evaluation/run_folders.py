"""Run folders made by hand."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from poise.evaluation.records import QuestionRecord, RecordWriter

from .constructed import header, question

BEFORE = [question("q1", "ABBB"), question("q2", "BBBB", "A", domain="biology", level=2)]
AFTER = [question("q1", "AAAB"), question("q2", "AABB", "A", domain="biology", level=2)]


def metric_lines(steps: int) -> list[dict[str, Any]]:
    """What the trainer logs, with values that change from step to step."""
    return [
        {
            "step": step,
            "loss": 1.0 / step,
            "grad_norm": 2.0 + step % 3,
            "pgpo/grad_norm_clipped": 1.0,
            "learning_rate": 1e-4,
            "pgpo/effective_learning_rate": 1e-4 * (1 + step % 2),
            "self_distillation/reward_mean": step / steps,
            "pgpo/information_signal": 0.1 * (step % 5),
            "pgpo/multiplier": 1 + 0.1 * (step % 5),
            "pgpo/student_entropy": 1.0 - 0.01 * step,
            "pgpo/teacher_entropy": 0.8 - 0.01 * step,
            "completions/mean_length": 40.0 - step % 7,
            "pgpo/distilled_fraction": 0.5,
        }
        for step in range(1, steps + 1)
    ]


def write_evaluation(path: Path, questions: Sequence[QuestionRecord], **overrides: Any) -> None:
    """An evaluation of a run."""
    RecordWriter(path, header(**overrides)).write(list(questions))


def write_run(
    folder: Path,
    steps: int = 20,
    before: Sequence[QuestionRecord] | None = BEFORE,
    after: Sequence[QuestionRecord] | None = AFTER,
    **config: Any,
) -> Path:
    """A complete run; `config` overrides settings of the section of that name."""
    folder.mkdir(parents=True)
    settings = {
        "script": {"dataset": "science", "split": "train", "style": "plain", "levels": [1, 2]},
        "config": {"output_dir": str(folder), "learning_rate": 1e-4, "seed": 3} | config,
        "model": {"model_name_or_path": "some/model"},
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(settings))
    (folder / "versions.json").write_text(json.dumps({"poise": "0.1.0", "started": "2026-01-02"}))
    lines = [json.dumps(line) + "\n" for line in metric_lines(steps)]
    (folder / "metrics.jsonl").write_text("".join(lines))
    for name, questions in (("before", before), ("after", after)):
        if questions is not None:
            write_evaluation(folder / "evaluation" / f"{name}.jsonl", questions)
    return folder
