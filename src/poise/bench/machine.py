"""On what a run ran, and which code it was."""

from __future__ import annotations

import hashlib
import os
import platform
from pathlib import Path
from typing import Any


def hardware() -> dict[str, Any]:
    """Processor, cores that this process may use, torch's threads, and the GPU if there is one."""
    import torch

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    gpu = torch.cuda.get_device_name(0) if torch.cuda.is_available() else None
    return {
        "processor": _processor(),
        "cores": cores,
        "threads": torch.get_num_threads(),
        "gpu": gpu,
    }


def source() -> str:
    """10 hex digits of a SHA-256 over Poise's own modules; versions alone do not tell commits."""
    package = Path(__file__).parents[1]
    modules = sorted(package.rglob("*.py"))
    parts = [str(m.relative_to(package)).encode() + b"\n" + m.read_bytes() for m in modules]
    return hashlib.sha256(b"\n".join(parts)).hexdigest()[:10]


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor() or platform.machine()
