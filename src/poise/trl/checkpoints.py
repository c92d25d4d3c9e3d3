"""Checkpoints that can be trusted: a manifest written last, checked before a resume."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
from pathlib import Path

logger = logging.getLogger(__name__)

MANIFEST = "poise_manifest.json"
_FORMAT = 1
_CHECKPOINT = re.compile(r"checkpoint-(\d+)")


class DamagedCheckpointError(ValueError):
    """A checkpoint that is incomplete, or whose files are not those that were written."""


def write_manifest(checkpoint: Path) -> None:
    """Lists every file of a complete checkpoint with size and SHA-256, atomically and last."""
    manifest, temporary = checkpoint / MANIFEST, checkpoint / f"{MANIFEST}.tmp"
    files = {
        path.relative_to(checkpoint).as_posix(): {
            "bytes": path.stat().st_size,
            "sha256": _digest(path),
        }
        for path in sorted(checkpoint.rglob("*"))
        if path.is_file() and path not in (manifest, temporary)
    }
    with temporary.open("w") as file:
        json.dump({"format": _FORMAT, "files": files}, file, indent=1)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(manifest)


def verify(checkpoint: Path) -> None:
    """Checks a checkpoint against its manifest.

    Raises:
        DamagedCheckpointError: no manifest, a file missing, or one with another content.
    """
    for name, (size, digest) in _read_manifest(checkpoint).items():
        _verify_file(checkpoint / name, size, digest)


def _read_manifest(checkpoint: Path) -> dict[str, tuple[int, str]]:
    path = checkpoint / MANIFEST
    try:
        manifest = json.loads(path.read_text())
        version = manifest["format"]
        entries = manifest["files"] if version == _FORMAT else {}
        files = {name: (entry["bytes"], entry["sha256"]) for name, entry in entries.items()}
    except FileNotFoundError:
        raise DamagedCheckpointError(
            f"{checkpoint} has no {MANIFEST}: it was not written to its end, or not by Poise"
        ) from None
    # The manifest may be damaged as well: not JSON, or JSON of another shape.
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DamagedCheckpointError(f"{path} is unreadable: {error!r}") from None
    if version != _FORMAT:
        raise DamagedCheckpointError(f"{path} has format {version!r}, expected {_FORMAT}")
    return files


def _verify_file(path: Path, size: int, digest: str) -> None:
    if not path.is_file():
        raise DamagedCheckpointError(f"{path} is missing")
    found = path.stat().st_size
    if found != size:
        raise DamagedCheckpointError(f"{path} has {found} bytes, expected {size}")
    if _digest(path) != digest:
        raise DamagedCheckpointError(f"{path} does not have the content that was written")


def newest_valid(run: Path) -> Path:
    """The newest checkpoint of a run that passes `verify`; names those that it passes over.

    Raises:
        ValueError: the folder has no checkpoint, or no whole one.
    """
    found = _checkpoints(run)
    if not found:
        raise ValueError(
            f"cannot resume: {run} holds no folder checkpoint-<step>; start the run without "
            "resume_from_checkpoint"
        )
    faults = []
    for checkpoint in found:
        try:
            verify(checkpoint)
        except DamagedCheckpointError as fault:
            logger.warning("Passing over a damaged checkpoint: %s", fault)
            faults.append(str(fault))
        else:
            return checkpoint
    raise DamagedCheckpointError("cannot resume, no checkpoint is whole: " + "; ".join(faults))


def resolve_resume(resume: bool | str | None, run: Path) -> Path | None:
    """From `resume_from_checkpoint` to a checkpoint that can be trusted.

    Args:
        resume: True for the newest whole checkpoint of the run; a checkpoint folder; a run folder;
            None or False for a fresh start.
        run: the output folder.

    Raises:
        ValueError: nothing to resume from.
        DamagedCheckpointError: the named checkpoint is damaged.
    """
    if resume is None or resume is False:
        return None
    folder = run if resume is True else Path(resume)
    if not folder.is_dir():
        raise ValueError(f"cannot resume: {folder} is not a folder")
    if not _CHECKPOINT.fullmatch(folder.name):
        return newest_valid(folder)
    verify(folder)
    return folder


def refuse_used_folder(run: Path) -> None:
    """A run folder holds one run; a new one in it would leave two runs' checkpoints side by side.

    Raises:
        ValueError: the folder has a checkpoint.
    """
    if (checkpoint := latest(run)) is not None:
        raise ValueError(
            f"{run} holds the checkpoints of a run ({checkpoint.name}); go on with it by "
            "resume_from_checkpoint=True, or choose another output_dir"
        )


def latest(run: Path) -> Path | None:
    """The newest checkpoint folder that was written to its end, or None."""
    return next((path for path in _checkpoints(run) if (path / MANIFEST).is_file()), None)


def _checkpoints(run: Path) -> list[Path]:
    steps = {
        int(match[1]): path
        for path in (run.iterdir() if run.is_dir() else ())
        if path.is_dir() and (match := _CHECKPOINT.fullmatch(path.name))
    }
    return [steps[step] for step in sorted(steps, reverse=True)]


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
