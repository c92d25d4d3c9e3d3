"""Writes what the engine saw in each layer as JSON lines into the run folder."""

from __future__ import annotations

import json
from pathlib import Path
from statistics import fmean
from typing import Any

from transformers import TrainerCallback

from ..trl.logs import drop_after
from .statistics import LayerStatistics

LAYERS = "layers.jsonl"


class LayersLog(TrainerCallback):  # type: ignore[misc]
    """Appends `{"step": ..., "layers": {name: {figure: value}}}` to `layers.jsonl`.

    A resumed run first drops what the interrupted one wrote after its checkpoint.
    """

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.is_world_process_zero:
            drop_after(Path(args.output_dir) / LAYERS, state.global_step)

    def write(self, args: Any, state: Any, layers: dict[str, LayerStatistics]) -> None:
        """Adds a line, on the main process."""
        if state.is_world_process_zero:
            line = {
                "step": state.global_step,
                "layers": {n: s._asdict() for n, s in layers.items()},
            }
            with (Path(args.output_dir) / LAYERS).open("a") as file:
                file.write(json.dumps(line) + "\n")


def layer_means(layers: dict[str, LayerStatistics]) -> dict[str, float]:
    """Means of each figure over layers."""
    columns = zip(*layers.values(), strict=True)
    return dict(zip(LayerStatistics._fields, map(fmean, columns), strict=True))
