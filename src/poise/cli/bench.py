"""`poise bench`: for one release, the old name of `python -m lab` in the repository."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def main(argv: list[str]) -> int:
    """Name the new command; run it where the working directory has the folder `lab`."""
    command = " ".join(["python -m lab", *argv])
    print(f"poise bench: use `{command}` in the repository's root", file=sys.stderr)
    if not Path("lab", "__main__.py").is_file():
        return 2
    return subprocess.call([sys.executable, "-m", "lab", *argv])
