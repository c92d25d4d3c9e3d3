"""What the host forgets in a checkpoint: rollout buffer, EMA teacher, counters."""

from __future__ import annotations

import json
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
    """Name of a rank's figures that are not logged yet."""
    return f"poise_state_{rank}.json"


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
