"""What TRL forgets in a checkpoint: rollout buffer, teacher, counters."""

from __future__ import annotations

import json
from itertools import count
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

STATE = "poise_state.json"
TEACHER = "poise_teacher.safetensors"

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


def check_fits(checkpoint: Path, *, ranks: int, has_teacher: bool) -> None:
    """Refuses a checkpoint that lacks what a run is to restore.

    Args:
        checkpoint: its folder.
        ranks: how many the run has; each restores its own rollouts.
        has_teacher: whether the run restores a teacher, as one does whose teacher changes.

    Raises:
        ValueError: saved with fewer ranks, or without a teacher.
    """
    saved = next(rank for rank in count() if not (checkpoint / rollouts_file(rank)).is_file())
    if saved < ranks:
        raise ValueError(
            f"cannot resume from {checkpoint} with {ranks} ranks: it holds the rollouts of {saved};"
            f" resume with {saved}, or start a new run in another output_dir"
        )
    if has_teacher and not (checkpoint / TEACHER).is_file():
        raise ValueError(
            f"cannot resume from {checkpoint} with a teacher that changes: it holds no teacher; "
            "resume with the teacher_model_kind and teacher_refresh that it was saved with, or "
            "start a new run in another output_dir"
        )


def save_json(path: Path, state: dict[str, Any]) -> None:
    """Writes plain values."""
    path.write_text(json.dumps(state, indent=1))


def load_json(path: Path) -> dict[str, Any]:
    """Reads plain values."""
    state: dict[str, Any] = json.loads(path.read_text())
    return state
