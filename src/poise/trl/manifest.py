"""Which checkpoint to trust: one is whole when its manifest is, which is written last.

Reads and writes files alone; `checkpoints.py` says when.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import shutil
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import xxhash

logger = logging.getLogger(__name__)

MANIFEST = "poise_manifest.json"
AUTO = "auto"
_BEGUN = f"{MANIFEST}.tmp"  # a checkpoint of Poise that is being written
_FORMAT, _DIGEST = 3, "xxh3_128"  # a change of any file of a checkpoint is another format
_CHECKPOINT = re.compile(r"checkpoint-(\d+)")


class DamagedCheckpointError(ValueError):
    """A checkpoint that is incomplete, or whose files are not those that were written."""


def begin_checkpoint(checkpoint: Path) -> None:
    """Makes an empty folder, marked as not whole: what a killed run left is no part of it."""
    _delete(checkpoint)
    checkpoint.mkdir(parents=True)
    (checkpoint / _BEGUN).touch()


def _delete(checkpoint: Path, ignore_errors: bool = False) -> None:
    """The manifest goes first: a kill leaves nothing that looks whole."""
    (checkpoint / MANIFEST).unlink(missing_ok=True)
    if checkpoint.exists():
        shutil.rmtree(checkpoint, ignore_errors=ignore_errors)


def write_manifest(checkpoint: Path, run: dict[str, Any] | None = None) -> None:
    """Lists every file of a complete checkpoint with size and digest, atomically and last; beside
    them `run`, what it resumes with.

    The files are on the disk before their manifest is, so that a machine may crash afterwards.
    Choice: XXH3 with 128 bits, which finds damage (not forgery) in a fraction of SHA-256's time.
    """
    manifest, temporary = checkpoint / MANIFEST, checkpoint / _BEGUN
    own = (manifest, temporary)
    written = [p for p in sorted(checkpoint.rglob("*")) if p.is_file() and p not in own]
    with ThreadPoolExecutor(1) as beside:  # which hashes while the disk is waited for
        digests = beside.map(_digest, written)
        for path in written:
            _sync(path)
        files = {
            path.relative_to(checkpoint).as_posix(): {"bytes": path.stat().st_size, _DIGEST: digest}
            for path, digest in zip(written, digests, strict=True)
        }
    text = json.dumps({"format": _FORMAT, "run": run or {}, "files": files}, indent=1)
    temporary.write_text(text)
    _sync(temporary)
    temporary.replace(manifest)
    if os.name == "posix":  # elsewhere names cannot be brought to the disk alone
        _sync(checkpoint)
        _sync(checkpoint.parent)


def _sync(path: Path) -> None:
    """Brings a file, or the names of a folder's files, to the disk."""
    place = os.open(path, os.O_RDONLY)
    try:
        os.fsync(place)
    finally:
        os.close(place)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, xxhash.xxh3_128).hexdigest()


def verify(checkpoint: Path) -> None:
    """Raises DamagedCheckpointError: no manifest, a file missing, or one with another content."""
    for name, (size, digest) in read_manifest(checkpoint)["files"].items():
        path = checkpoint / name
        if not path.is_file():
            raise DamagedCheckpointError(f"{path} is missing")
        if (found := path.stat().st_size) != size:
            raise DamagedCheckpointError(f"{path} has {found} bytes, expected {size}")
        if _digest(path) != digest:
            raise DamagedCheckpointError(f"{path} does not have the content that was written")


def lacking(checkpoint: Path, names: Iterable[str] = ()) -> list[str]:
    """Which of these names and of the manifest's files are not there, or have another size.

    It reads no contents and never raises: what a disk refuses is not there.
    """
    wanted: dict[str, int | None] = dict.fromkeys(names)
    try:
        wanted |= {name: size for name, (size, _) in read_manifest(checkpoint)["files"].items()}
    except DamagedCheckpointError:
        wanted[MANIFEST] = -1

    def has(path: Path, size: int | None) -> bool:
        try:
            return path.is_file() and size in (None, path.stat().st_size)
        except OSError:
            return False

    return [name for name, size in wanted.items() if not has(checkpoint / name, size)]


def read_manifest(checkpoint: Path) -> dict[str, dict[str, Any]]:
    """Under "files" size and digest by name, under "run" what the checkpoint resumes with."""
    path = checkpoint / MANIFEST
    try:
        manifest = json.loads(path.read_text())
        if (found := manifest["format"]) == _FORMAT:
            files = {name: (f["bytes"], f[_DIGEST]) for name, f in manifest["files"].items()}
            return {"files": files, "run": dict(manifest["run"])}
        reason = f"{path} has format {found!r}, expected {_FORMAT}"
    except FileNotFoundError:
        how = "by Poise with exact_resume=True" if _is_foreign(checkpoint) else "to its end"
        reason = f"{checkpoint} has no {MANIFEST}: it was not written {how}"
    # The manifest may be damaged as well: not JSON, or JSON of another shape.
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        reason = f"{path} is unreadable: {error!r}"
    raise DamagedCheckpointError(reason)


def _is_foreign(checkpoint: Path) -> bool:
    """Whether another trainer wrote a checkpoint, to its end as far as can be seen."""
    is_ours = any((checkpoint / name).exists() for name in (MANIFEST, _BEGUN))
    return not is_ours and (checkpoint / "trainer_state.json").is_file()


def is_to_begin(run: Path) -> bool:
    """Whether `resume_from_checkpoint="auto"` begins a run: none of its checkpoints was written to
    its end."""
    return not any((path / MANIFEST).exists() or _is_foreign(path) for path in _checkpoints(run))


def resolve_resume(resume: bool | str | None, run: Path) -> Path | None:
    """From `resume_from_checkpoint` to a checkpoint that can be trusted.

    Args:
        resume: True for the newest whole checkpoint of the run; "auto" for the same, or a fresh
            start where no checkpoint was written to its end; a checkpoint folder; a run folder;
            None or False for a fresh start.
        run: the output folder.

    Raises:
        ValueError: nothing to resume from; DamagedCheckpointError: nothing that is whole.
    """
    if resume == AUTO and is_to_begin(run):
        logger.info("%s holds no checkpoint that was written to its end: the run begins", run)
        return None
    if resume is None or resume is False:
        return None
    folder = run if resume is True or resume == AUTO else Path(resume)
    if not folder.is_dir():
        raise ValueError(f"cannot resume: {folder} is not a folder")
    if _CHECKPOINT.fullmatch(folder.name):
        verify(folder)
    else:
        folder = _newest_whole(folder)
    logger.info("Going on from %s", folder)
    return folder


def _newest_whole(run: Path) -> Path:
    """The newest checkpoint that passes `verify`; names those that it passes over."""
    faults = []
    for checkpoint in _checkpoints(run):
        try:
            verify(checkpoint)
            return checkpoint
        except DamagedCheckpointError as fault:
            logger.warning("Passing over a damaged checkpoint: %s", fault)
            faults.append(str(fault))
    if faults:
        raise DamagedCheckpointError("cannot resume, no checkpoint is whole: " + "; ".join(faults))
    raise ValueError(
        f"cannot resume: {run} holds no folder checkpoint-<step>; start the run without "
        f"resume_from_checkpoint, or with {AUTO!r}, which begins a run that has none yet"
    )


def refuse_used_folder(run: Path, *, of_command: bool = False) -> None:
    """Raises ValueError for a folder with a checkpoint: two runs' would lie side by side. It names
    arguments, or a command's flags."""
    if (checkpoint := latest(run)) is not None:
        flag, value = ("--", f" {AUTO}") if of_command else ("", "=True")
        raise ValueError(
            f"{run} holds the checkpoints of a run ({checkpoint.name}); go on with it by "
            f"{flag}resume_from_checkpoint{value}, or choose another {flag}output_dir"
        )


def latest(run: Path) -> Path | None:
    """The newest checkpoint folder that was written to its end, or None."""
    return next((path for path in _checkpoints(run) if (path / MANIFEST).is_file()), None)


def rotate(run: Path, limit: int | None, newest: Path, best: str | None = None) -> None:
    """Deletes the oldest checkpoints beyond `limit` (as `save_total_limit`; None or 0 keeps all),
    those that are not whole before others; `newest` and `best` stay."""
    if limit is None or limit <= 0:
        return
    kept = {newest.name, Path(best or newest).name}
    others = [checkpoint for checkpoint in _checkpoints(run) if checkpoint.name not in kept]
    others.sort(key=lambda checkpoint: not (checkpoint / MANIFEST).is_file())
    for checkpoint in others[max(limit - len(kept), 0) :]:
        _delete(checkpoint, ignore_errors=True)


def _checkpoints(run: Path) -> list[Path]:
    """Newest first."""
    folders = [path for path in run.iterdir() if path.is_dir()] if run.is_dir() else []
    steps = {int(match[1]): p for p in folders if (match := _CHECKPOINT.fullmatch(p.name))}
    return [steps[step] for step in sorted(steps, reverse=True)]
