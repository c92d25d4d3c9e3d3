"""What an IGA run logs of domains and layers, and what its checkpoints keep beside TRL's."""

from __future__ import annotations

import json
from pathlib import Path
from statistics import fmean
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import TrainerCallback
from trl import SFTTrainer

from ..trl import checkpoints as resume
from ..trl.checkpoints import CheckpointingMixin
from ..trl.logs import drop_after
from .baselines import Baseline
from .config import IGAConfig
from .engine import GradientEngine
from .loss import DomainLosses, DomainObjective
from .statistics import LayerStatistics


class IGAStateMixin(CheckpointingMixin, SFTTrainer):  # type: ignore[misc]
    """Logs losses by domain and figures by layer; saves and restores them with the warm starts.

    Needs `_prepare_state` before TRL's `__init__`, and `_layers_log` among the callbacks.
    """

    _method = "iga"
    domains: tuple[str, ...]

    def _prepare_state(self, args: IGAConfig) -> None:
        number = len(self.domains)
        self.engine: GradientEngine | None = None
        self.baseline: Baseline | None = args.baseline(number)
        self._objective: DomainObjective | None = None
        if args.iga_method != "iga":
            self._describe_baseline(args.iga_method)
        self._domain_losses = DomainLosses(number)
        self._layers_log = LayersLog()

    def _describe_baseline(self, method: str) -> None:
        """What the model card says of a baseline."""
        self._name, self._paper = "SFT", {}
        self._tag_names = ["trl", "sft", method.partition(":")[0], "poise"]
        if self.baseline is not None:
            self._name = type(self.baseline).__name__
            title, number = self.baseline.paper
            self._paper = {"title": title, "id": number}

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        if self.model.training and "loss" in logs:
            self._log_alignment()
        super().log(logs, start_time)

    def _log_alignment(self) -> None:
        metrics = self._metrics["train"]
        losses = self._domain_losses.pop(self.accelerator)
        for name, loss in zip(self.domains, losses, strict=True):
            if loss is not None:
                metrics[f"iga/loss/{name}"].append(loss)
        layers = {} if self.engine is None else self.engine.statistics()
        if layers:
            if self.args.iga_space != "direction" or self.baseline is not None:
                metrics["iga/tau"].append(self.args.tau_at(self.state.global_step - 1))
            for figure, value in layer_means(layers).items():
                metrics[f"iga/{figure}"].append(value)
            self._layers_log.write(self.args, self.state, layers)
        figures = {} if self.baseline is None else self.baseline.figures.take()
        for name, value in figures.items():
            if not isinstance(value, list):
                metrics[f"iga/{name}"].append(value)
                continue
            for domain, part in zip(self.domains, value, strict=True):
                metrics[f"iga/{name}/{domain}"].append(part)

    def _check_checkpoint(self, checkpoint: Path) -> None:
        rank = self.accelerator.process_index
        names = [resume.state_file(rank)]
        if self.engine is not None:
            names.append(resume.warm_starts_file(rank))
        for name in names:
            if not (checkpoint / name).is_file():
                raise ValueError(
                    f"cannot resume from {checkpoint}: expected {name}, found none; resume with as "
                    "many ranks and the settings that it was saved with, or start a new run in "
                    "another output_dir"
                )
        saved = {"method": "iga"} | resume.load_json(checkpoint / names[0])
        for name, value in self._kind().items():
            if saved.get(name) != value:
                raise ValueError(
                    f"cannot resume from {checkpoint}: expected iga_{name} {value!r}, found "
                    f"{saved.get(name)!r}; resume with that, or start a new run in another "
                    "output_dir"
                )

    def _kind(self) -> dict[str, str]:
        """What a run resumes with: another method's state would be taken for its own."""
        is_iga = self.args.iga_method == "iga" and self.engine is not None
        names = ("method", "space", "applied_to") if is_iga else ("method",)
        return {name: getattr(self.args, f"iga_{name}") for name in names}

    def _save_state(self, folder: Path) -> None:
        rank = self.accelerator.process_index
        if self.engine is not None:
            save_file(self.engine.state_dict(), folder / resume.warm_starts_file(rank))
        state = {
            "tokens": self._total_train_tokens,
            "domain_losses": self._domain_losses.state_dict(),
            "layers": {} if self.engine is None else self.engine.unread.state_dict(),
            **self._kind(),
            "baseline": None if self.baseline is None else self.baseline.state_dict(),
        }
        resume.save_json(folder / resume.state_file(rank), state)

    def _load_state(self, folder: Path) -> None:
        rank = self.accelerator.process_index
        state = resume.load_json(folder / resume.state_file(rank))
        if self.engine is not None:
            self.engine.load_state_dict(load_file(folder / resume.warm_starts_file(rank)))
            self.engine.unread.load_state_dict(state["layers"])
        self._total_train_tokens = state["tokens"]
        self._domain_losses.load_state_dict(state["domain_losses"])
        if self.baseline is not None:
            self.baseline.load_state_dict(state["baseline"])

    def _sum_over_ranks(self, values: Tensor) -> Tensor:
        total: Tensor = self.accelerator.reduce(values.to(self.accelerator.device), reduction="sum")
        return total


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
