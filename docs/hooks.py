"""For MkDocs: copies figures of experiments, which lie outside its folder, into the site."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any


def on_post_build(config: Any) -> None:
    """Copies experiments/NAME/figure.png into the site."""
    root = Path(config.config_file_path).parent
    for figure in root.glob("experiments/*/figure.png"):
        target = Path(config.site_dir, figure.relative_to(root))
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(figure, target)
