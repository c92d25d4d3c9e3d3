"""What an IGA run logs of domains and layers, and what its checkpoints keep beside TRL's."""

from __future__ import annotations

from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from trl import SFTTrainer

from ..trl import checkpoints as resume
from ..trl.checkpoints import CheckpointingMixin
from ..trl.logs import JsonLines
from .baselines import Baseline
from .config import IGAConfig
from .engine import GradientEngine
from .loss import DomainObjective
from .statistics import LayerStatistics


class IGAStateMixin(CheckpointingMixin, SFTTrainer):  # type: ignore[misc]
    """Logs losses by domain and figures by layer; saves and restores them with the engine's state.

    Needs `_prepare_state` before TRL's `__init__`, and `_layers_log` among the callbacks.
    """

    _method = "iga"
    domains: tuple[str, ...]

    def _prepare_state(self, args: IGAConfig) -> None:
        number = len(self.domains)
        self.engine: GradientEngine | None = None
        self.baseline: Baseline | None = args.baseline(number)
        self._objective: DomainObjective | None = None
        self._domain_sums = torch.zeros(2, number)  # losses, tokens
        self._layers_log = JsonLines("layers.jsonl")
        if args.iga_method == "iga":
            return
        # What the model card says of a baseline.
        self._name, self._paper = "SFT", {}
        self._tag_names = ["trl", "sft", args.iga_method.partition(":")[0], "poise"]
        if self.baseline is not None:
            self._name = type(self.baseline).__name__
            self._paper = dict(zip(("title", "id"), self.baseline.paper, strict=True))

    def _add_losses(self, losses: Tensor, counts: Tensor) -> None:
        """Adds a micro-batch's (K,) mean losses over (K,) tokens."""
        losses, counts = losses.detach().float(), counts.to(losses.device).float()
        seen = torch.stack([losses * counts, counts])
        self._domain_sums = self._domain_sums.to(seen) + seen

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        if self.model.training and "loss" in logs:
            self._log_domains()
        super().log(logs, start_time)

    def _log_domains(self) -> None:
        metrics = self._metrics["train"]
        sums = zip(self.domains, *self._sum_over_ranks(self._domain_sums).tolist(), strict=True)
        self._domain_sums = torch.zeros_like(self._domain_sums)
        for name, loss, count in sums:
            if count:
                metrics[f"iga/loss/{name}"].append(loss / count)
        layers = {} if self.engine is None else self.engine.statistics()
        if layers:
            if self.args.iga_space != "direction" or self.baseline is not None:
                metrics["iga/tau"].append(self.args.tau_at(self.state.global_step - 1))
            columns = zip(*layers.values(), strict=True)
            for figure, values in zip(LayerStatistics._fields, columns, strict=True):
                metrics[f"iga/{figure}"].append(fmean(values))
            named = {name: layer._asdict() for name, layer in layers.items()}
            self._layers_log.write(self.args, self.state, {"layers": named})
        figures = {} if self.baseline is None else self.baseline.figures.take()
        for name, value in figures.items():
            if not isinstance(value, list):
                metrics[f"iga/{name}"].append(value)
                continue
            for domain, part in zip(self.domains, value, strict=True):
                metrics[f"iga/{name}/{domain}"].append(part)

    def _sum_over_ranks(self, values: Tensor) -> Tensor:
        total: Tensor = self.accelerator.reduce(values.to(self.accelerator.device), reduction="sum")
        return total

    def _kind_of_checkpoint(self) -> dict[str, Any]:
        """Another method's state would be taken for the run's own."""
        kind = super()._kind_of_checkpoint() | {"iga_method": self.args.iga_method}
        if self.args.iga_method == "iga":
            kind["iga_space"] = "neutral" if self.engine is None else self.args.iga_space
            kind["iga_applied_to"] = self.args.iga_applied_to
        return kind

    def _save_state(self, folder: Path) -> None:
        rank, engine = self.accelerator.process_index, self.engine
        save_file({} if engine is None else engine.state_dict(), _engine_file(folder, rank))
        state = {
            "tokens": self._total_train_tokens,
            "domain_losses": self._domain_sums.tolist(),
            "layers": {} if engine is None else engine.unread.state_dict(),
            "baseline": None if self.baseline is None else self.baseline.state_dict(),
        }
        resume.save_json(folder / resume.state_file(rank), state)

    def _state_files(self, rank: int) -> tuple[str, ...]:
        return resume.state_file(rank), resume.warm_starts_file(rank)

    def _load_state(self, folder: Path) -> None:
        rank = self.accelerator.process_index
        state = resume.load_json(folder / resume.state_file(rank))
        if self.engine is not None:
            self.engine.load_state_dict(load_file(_engine_file(folder, rank)))
            self.engine.unread.load_state_dict(state["layers"])
        self._total_train_tokens = state["tokens"]
        self._domain_sums = torch.tensor(state["domain_losses"])
        if self.baseline is not None:
            self.baseline.load_state_dict(state["baseline"])


def _engine_file(folder: Path, rank: int) -> Path:
    return folder / resume.warm_starts_file(rank)
