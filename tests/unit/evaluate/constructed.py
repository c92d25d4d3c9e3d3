"""Records and run folders made by hand, so that every number in a test is known beforehand."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from poise.evaluate.records import (
    Header,
    Place,
    QuestionRecord,
    RecordWriter,
    Representations,
    beside,
    write_representations,
)


def question(
    id: str, extracted: Sequence[str | None], answer: str = "A", **overrides: Any
) -> QuestionRecord:
    """A question whose samples gave these answers."""
    k = len(extracted)
    settings: dict[str, Any] = {
        "domain": "physics",
        "level": 1,
        "prompt": f"Which force is larger? ({id})",
        "completions": tuple(f"I say {x}." for x in extracted),
        "rewards": tuple(float(x == answer) for x in extracted),
        "lengths": tuple(range(5, 5 + k)),
        "finished": (True,) * k,
    }
    return QuestionRecord(id=id, answer=answer, extracted=tuple(extracted), **settings | overrides)


def header(**overrides: Any) -> Header:
    """A header with settings as the command writes them."""
    settings: dict[str, Any] = {
        "model": "some/model",
        "dataset": "science",
        "split": "test",
        "sampling": {"k": 4, "temperature": 0.6, "top_p": 0.95, "max_new_tokens": 32},
        "seed": 7,
        "versions": {"poise": "0.1.0"},
        "created": "2026-01-02T03:04:05+00:00",
    }
    return Header(**settings | overrides)


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
        "script": {
            "dataset_name": "science",
            "dataset_train_split": "train",
            "style": "plain",
            "levels": [1, 2],
        },
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


DOMAINS = ("law", "mathematics", "medicine", "science")


def isomers(
    right: int, tests: Sequence[str] = ("in_distribution", "reversed", "deeper"), sets: int = 4
) -> list[QuestionRecord]:
    """Isomer sets of several tests; in each set so many domains are answered right."""
    return [
        question(
            f"{test}{i}/{domain}",
            "A" if place < right else "B",
            domain=domain,
            isomer_id=f"{test}{i}",
            test=test,
        )
        for test in tests
        for i in range(sets)
        for place, domain in enumerate(DOMAINS)
    ]


def write_vectors(records: Path, questions: Sequence[QuestionRecord], spread: float) -> None:
    """Representations in which domains lie so far apart."""
    rng = np.random.default_rng(0)
    places = tuple(Place(q.id, q.isomer_id or "", q.domain, q.test) for q in questions)
    logic = {place.isomer_id: rng.normal(size=8) for place in places}
    shift = {domain: rng.normal(size=8) for domain in DOMAINS}
    rows = [logic[place.isomer_id] + spread * shift[place.domain] for place in places]
    vectors = np.array(rows, dtype=np.float32)
    write_representations(beside(records), Representations(header(), places, vectors))


def write_iga_run(
    folder: Path, steps: int = 20, right: int = 3, domains: Sequence[str] = DOMAINS, **config: Any
) -> Path:
    """A run on isomers, evaluated by test, with statistics of its layers."""
    write_run(folder, 0, isomers(1), isomers(right), **config)
    for name, count, spread in (("before", 1, 1.0), ("after", right, 0.0)):
        write_vectors(folder / "evaluation" / f"{name}.jsonl", isomers(count), spread)
    keys = {"mask_mean": 0.5, "suppressed_energy": 0.2, "agreement": 0.1, "rank_energy": 0.9}
    lines, layers = [], []
    for step in range(1, steps + 1):
        line = {"step": step, "loss": 1.0 / step, "grad_norm": 1.0, "learning_rate": 1e-4}
        line |= {f"iga/{key}": value for key, value in keys.items()}
        line |= {f"iga/loss/{domain}": 1.0 / step + i for i, domain in enumerate(domains)}
        lines.append(line)
        wave = 0.1 * (-1) ** step
        statistics = {
            "model.layers.0.attn.q_proj": keys | {"mask_mean": 0.5 + wave},
            "model.layers.1.attn.q_proj": keys | {"mask_mean": 0.6 + wave},
            "model.layers.2.attn.v_proj": keys | {"mask_mean": 0.7 + wave},
        }
        layers.append({"step": step, "layers": statistics})
    for name, found in (("metrics.jsonl", lines), ("layers.jsonl", layers)):
        (folder / name).write_text("".join(json.dumps(line) + "\n" for line in found))
    return folder
