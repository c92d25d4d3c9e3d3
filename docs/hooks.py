"""For MkDocs: figures of experiments, which lie outside its folder, become files of the site."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mkdocs.structure.files import File


def on_files(files: Any, config: Any) -> Any:
    """Adds experiments/NAME/figure.png."""
    root = Path(config.config_file_path).parent
    for figure in root.glob("experiments/*/figure.png"):
        name = figure.relative_to(root).as_posix()
        files.append(File.generated(config, name, abs_src_path=str(figure)))
    return files


def on_page_markdown(markdown: str, **context: Any) -> str:
    """Pages name them as seen from docs/."""
    return markdown.replace("](../experiments/", "](experiments/")
