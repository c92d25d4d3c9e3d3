"""IGA on TRL's trainer for supervised fine-tuning."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from accelerate.utils import DistributedType
from datasets import Dataset
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.distributed.fsdp import CPUOffloadPolicy
from trl import SFTTrainer

from ..precision import keep_differentiable
from ..sharding import gather, is_sharded, loss_inside
from ..trl import checkpoints as resume
from ..trl.checkpoints import CheckpointingMixin
from ..trl.logs import JsonLines, MetricsLog
from ..trl.preflight import (
    refuse_idle_optimizer,
    refuse_other_shards,
    refuse_quantised_shards,
    refuse_spread_model,
)
from ..trl.rounding import RoundingCheck, precision_before_trl
from .adapters import LayerStatistics
from .batches import DOMAIN, IsomerCollator, IsomerSets, tell_lost_rows, with_one_end
from .config import IGAConfig
from .domains import DomainBatch, Weights, weigh_domains, weighted_sum
from .engine import GradientEngine
from .loss import DomainObjective
from .preflight import check_before_loading, check_plain_sgd
from .settings import Aggregator, Objective

logger = logging.getLogger(__name__)


class IGATrainer(CheckpointingMixin, SFTTrainer):  # type: ignore[misc]
    """Trainer for Invariant Gradient Alignment on logical isomer sets.

    TRL's `SFTTrainer` with two changes: a batch is made of whole isomer sets, whose loss is
    sum_k w_k L_k over the domains, and the gradients of the LoRA factors are those of
    `GradientEngine`. With `domain_weights="tokens"` and `iga_method="erm"` it is `SFTTrainer` on
    these batches, bit for bit; so is a neutral setting (`iga_space="weight"`, `tau=0`,
    `projection="none"`). On a quantised base its adapters are float32, not TRL's bfloat16.

    An objective is of each micro-batch and rank by itself, and its gradients are averaged.
    Statistics of layers are those of the main process.

    Args:
        model: as TRL's: a path, a hub id, or a model, also a PEFT model.
        args: the configuration.
        data_collator: as TRL's, for rows: `input_ids` and `labels` to a padded batch.
        train_dataset: rows with `isomer_id`, `domain`, `prompt` and `completion`; a set may lack a
            domain.
        eval_dataset: as TRL's; its rows need no sets, and weigh by tokens.
        processing_class: as TRL's.
        host: TRL's other arguments, by name: `peft_config`, `callbacks`, `optimizers`,
            `compute_metrics`, `quantization_config` and so on, but for `compute_loss_func` and
            `formatting_func`.

    Raises:
        ValueError: bad input, each with its own message, before the model is loaded where possible.
        TypeError: arguments of another trainer, a data set of another kind.
        UnsupportedAdapter: a trained adapter that cannot be taken apart by domain.

    Reference: IGA (arXiv 2606.05025).
    """

    _method = "iga"
    _figures = ("entropy", "mean_token_accuracy", "num_tokens", "aux_loss")  # SFTTrainer's
    _tag_names = ["trl", "sft", "iga", "poise"]  # noqa: RUF012 (TRL's class attribute)
    _name = "IGA"
    _paper = {"title": "Invariant Gradient Alignment", "id": "2606.05025"}  # noqa: RUF012

    def __init__(
        self,
        model: Any,
        args: IGAConfig | None = None,
        data_collator: Any = None,
        train_dataset: Any = None,
        eval_dataset: Any = None,
        processing_class: Any = None,
        **host: Any,
    ) -> None:
        args = IGAConfig("iga-output") if args is None else args
        model, self.domains = check_before_loading(model, args, train_dataset, eval_dataset, host)
        host["callbacks"] = list(host.get("callbacks") or ())
        number = len(self.domains)
        self.engine: GradientEngine | None = None
        self.baseline = baseline = args.baseline(number)
        self._objective: DomainObjective | None = None
        self._micro_batch: DomainBatch | None = None
        self._domain_sums = torch.zeros(2, number)  # losses, tokens
        self._has_sets = False
        self._layers_log = JsonLines("layers.jsonl")
        if args.iga_method != "iga":  # what the model card says of a baseline
            self._name, self._paper = "SFT", {}
            self._tag_names = ["trl", "sft", args.iga_method.partition(":")[0], "poise"]
        if baseline is not None:
            self._name = type(baseline).__name__
            self._paper = dict(zip(("title", "id"), baseline.paper, strict=True))
        undo_casts = precision_before_trl(model, host.get("peft_config"))
        super().__init__(
            model, args, data_collator, train_dataset, eval_dataset, processing_class, **host
        )
        undo_casts(self.model)
        self._refuse_unsupported()
        self.data_collator: Any = IsomerCollator(self.data_collator)
        if args.needs_engine:
            method = baseline if isinstance(baseline, Aggregator) else args.iga()
            self.engine = GradientEngine(self.model, method, seed=args.seed)
        if isinstance(baseline, Objective):
            self._objective = DomainObjective(
                baseline, self.model, self.args.domain_weights, self.accelerator.autocast
            )
        for callback in (self._layers_log, RoundingCheck(), MetricsLog()):
            self.add_callback(callback)

    def _refuse_unsupported(self) -> None:
        refuse_spread_model(self.model)
        keep_differentiable(self.model)
        refuse_quantised_shards(self.accelerator, self.model, self.args)
        refuse_idle_optimizer(self.optimizer, self.model)
        refuse_other_shards(self.accelerator, "IGATrainer")
        plugin = getattr(self.accelerator.state, "fsdp_plugin", None)
        for is_set, reason in (
            (
                self.accelerator.distributed_type == DistributedType.DEEPSPEED,
                "IGATrainer cannot run under DeepSpeed, whose engine takes gradients over inside "
                "the backward; use DDP or FSDP2",
            ),
            (
                plugin is not None and isinstance(plugin.cpu_offload, CPUOffloadPolicy),
                "IGATrainer cannot run with FSDP's cpu_offload, with which gradients lie on "
                "another device than what the layers saw; set it to false in fsdp_config",
            ),
            (
                plugin is not None and self.args.iga_update == "retraction",
                "iga_update='retraction' needs whole factors, which FSDP shards; use "
                "iga_update='chain', or no FSDP",
            ),
            (
                self.args.needs_engine and self.aux_loss_enabled,
                "the router's auxiliary loss belongs to no domain; set router_aux_loss_coef=0",
            ),
        ):
            if is_set:
                raise ValueError(reason)

    def _prepare_dataset(
        self,
        dataset: Any,
        processing_class: Any,
        args: Any,
        packing: bool,
        formatting_func: Any,
        dataset_name: str,
    ) -> Any:
        """TRL's, with one end for each text; then groups training rows by set."""
        tokenizer = with_one_end(processing_class)
        rows = super()._prepare_dataset(
            dataset, tokenizer, args, packing, formatting_func, dataset_name
        )
        if isinstance(dataset, Dataset):  # of a stream nobody knows the length
            tell_lost_rows(dataset, rows, f"{dataset_name} data", args.max_length)
        # The first are those to train on; a data set for evaluation may be called "train", too.
        is_training, self._has_sets = not self._has_sets, True
        return IsomerSets(rows, self.domains) if is_training else rows

    def train(self, *args: Any, **kwargs: Any) -> Any:
        sets, number = self.train_dataset, len(self.domains)
        size = self.args.per_device_train_batch_size // number
        logger.info(
            "A batch has %d isomer sets, about %d sequences in %d domains.",
            size,
            round(size * sets.sequences / len(sets)),
            number,
        )
        # A run that stopped within a step left it open.
        self._domain_sums.zero_()
        if self.engine is not None:
            self.engine.drop_step()
        if isinstance(self.baseline, Objective):
            self.baseline.drop_step()
        return super().train(*args, **kwargs)

    def get_train_dataloader(self) -> Any:
        """TRL's, whose items are sets where `per_device_train_batch_size` counts sequences."""
        return self._get_dataloader(
            dataset=self.train_dataset,
            description="Training",
            batch_size=self.args.per_device_train_batch_size // len(self.domains),
            sampler_fn=self._get_train_sampler,
            is_training=True,
        )

    def create_optimizer(self, model: Any = None) -> Any:
        optimizer = super().create_optimizer(model)
        inner = getattr(optimizer, "optimizer", optimizer)
        if self._retracts:
            check_plain_sgd(inner)
        if self.engine is not None:
            self.engine.follow(inner)
        return optimizer

    @property
    def _retracts(self) -> bool:
        return self.engine is not None and self.args.iga_update == "retraction"

    # One optimizer step, in order: each micro-batch's loss under the engine's hooks, finish, clip,
    # step, log.

    def training_step(self, model: Any, inputs: Any, num_items_in_batch: Any = None) -> Any:
        inputs = dict(inputs)
        domains = inputs.pop(DOMAIN)
        self._micro_batch = batch = DomainBatch.of(inputs["labels"], domains, len(self.domains))
        watched: Any = nullcontext()
        if self.engine is not None and batch.present:
            watched = self.engine.collect(batch, self.args.tau_at(self.state.global_step))
        try:
            with watched:
                return super().training_step(model, inputs, num_items_in_batch)
        finally:
            self._micro_batch = None

    def compute_loss(
        self,
        model: Any,
        inputs: Any,
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> Any:
        """TRL's forward pass and figures; in training the loss by domains in place of TRL's."""
        batch, objective, of_host = self._micro_batch, self._objective, super().compute_loss
        if batch is None:  # an evaluation
            inputs = {name: value for name, value in inputs.items() if name != DOMAIN}
            return of_host(model, inputs, return_outputs, num_items_in_batch)
        # What takes the head's logits itself does so while a sharded model runs.
        is_inside = is_sharded(model) and objective is not None and objective.split is not None
        forward, seen = model.forward if is_inside else model, []

        def run(**arguments: Any) -> Any:
            head: Any = nullcontext() if objective is None else objective.watch()
            with head, gathered_head(model):
                seen.append(forward(**arguments))
            return seen[-1]

        def work() -> tuple[Any]:
            of_host(run, inputs, False, num_items_in_batch)
            return (self._loss_of(seen[-1], inputs["labels"], batch, num_items_in_batch),)

        if objective is not None:
            objective.verify(inputs["input_ids"])
        (loss,) = loss_inside(model, work) if is_inside else work()
        return (loss, seen[-1]) if return_outputs else loss

    def _loss_of(self, outputs: Any, labels: Any, batch: DomainBatch, items: Any) -> Any:
        """share * sum_k w_k L_k, or share * objective; its backward is transformers'."""
        by, steps = self.args.domain_weights, self.current_gradient_accumulation_steps
        world, scaler = 1, self.accelerator.scaler
        if self.args.average_tokens_across_devices and items is not None:
            world = self.accelerator.num_processes
        number = None if items is None else max(float(items), 1.0)
        scale = 1.0 if scaler is None else scaler.get_scale()
        share, later = share_of(batch, by, number, world, steps, scale)

        per_token = -outputs.log_probs  # 0 where there is no loss
        losses = batch.means(per_token)
        means, counts = losses.detach().float(), batch.counts.to(losses.device).float()
        seen = torch.stack([means * counts, counts])
        self._domain_sums = self._domain_sums.to(seen) + seen
        if not batch.present:
            loss = per_token.sum()
        elif self.engine is not None:
            loss = self.engine.weigh(losses, by, share, later)
        elif self._objective is not None:
            entropies = batch.means(outputs.entropy)
            step = self.state.global_step
            loss = share * self._objective(losses, entropies, labels, batch, step)
        elif by == "tokens":  # a mean over all tokens, as TRL takes it, to the bit
            loss = per_token.sum() / (sum(batch.host.counts) if number is None else number) * world
        else:
            loss = share * weighted_sum(weigh_domains(batch.host.counts, by), losses)
        if self.aux_loss_enabled:
            parts = 1 if items is None else steps
            loss = loss + self.router_aux_loss_coef * outputs.aux_loss / parts
        return loss

    def _clip_grad_norm(self, model: Any) -> Any:
        self._finish_gradients()
        return super()._clip_grad_norm(model)

    def _get_grad_norm(self, model: Any, grad_norm: Any = None) -> Any:
        if grad_norm is None:  # transformers does not clip
            self._finish_gradients()
        return super()._get_grad_norm(model, grad_norm)

    def _finish_gradients(self) -> None:
        if isinstance(self.baseline, Objective):
            self.baseline.finish_step(self._sum_over_ranks)
        if self.engine is not None:
            # A step with learning rate 0 changes nothing, whatever its gradient.
            self.engine.finish((self._get_learning_rate() or 1.0) if self._retracts else None)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        if self.model.training and "loss" in logs:
            self._log_domains(self._metrics["train"])
        super().log(logs, start_time)

    def _log_domains(self, metrics: Any) -> None:
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
            if isinstance(value, list):
                for domain, part in zip(self.domains, value, strict=True):
                    metrics[f"iga/{name}/{domain}"].append(part)
            else:
                metrics[f"iga/{name}"].append(value)

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
        engine, (state_file, engine_file) = self.engine, self._rank_files(folder)
        save_file({} if engine is None else engine.state_dict(), engine_file)
        state = {
            "tokens": self._total_train_tokens,
            "domain_losses": self._domain_sums.tolist(),
            "layers": {} if engine is None else engine.unread.state_dict(),
            "baseline": None if self.baseline is None else self.baseline.state_dict(),
        }
        resume.save_json(state_file, state)

    def _state_files(self, rank: int) -> tuple[str, ...]:
        return resume.state_file(rank), resume.warm_starts_file(rank)

    def _rank_files(self, folder: Path) -> list[Path]:
        return [folder / name for name in self._state_files(self.accelerator.process_index)]

    def _load_state(self, folder: Path) -> None:
        state_file, engine_file = self._rank_files(folder)
        state = resume.load_json(state_file)
        if self.engine is not None:
            self.engine.load_state_dict(load_file(engine_file))
            self.engine.unread.load_state_dict(state["layers"])
        self._total_train_tokens = state["tokens"]
        self._domain_sums = torch.tensor(state["domain_losses"])
        if self.baseline is not None:
            self.baseline.load_state_dict(state["baseline"])


def share_of(
    batch: DomainBatch, by: Weights, items: float | None, world: int, steps: int, scale: float
) -> tuple[float, float]:
    """A micro-batch's part of the step, averaged over ranks as TRL averages.

    Equal weights: 1 / micro-batches. By tokens: n_m * ranks / n, with n_m of the step's n tokens.

    Args:
        items: n, of all micro-batches and ranks; None if transformers has not counted them, which
            then divides by the micro-batches itself.
        world: ranks that `items` is counted over and gradients are averaged over, else 1.
        steps: micro-batches of the step.
        scale: of a gradient scaler.

    Returns:
        The factor of sum_k w_k L_k in `compute_loss`, and that by which transformers multiplies it.
    """
    if items is None:
        return 1.0, scale / steps
    return 1 / steps if by == "equal" else sum(batch.host.counts) * world / items, scale


@contextmanager
def gathered_head(model: Any) -> Iterator[None]:
    """Has FSDP2 gather the output head for a forward pass.

    TRL's loss takes the head's weight past its module. It gathers a sharded one itself, but a
    gradient that comes back that way is the rank's own, and no mean over ranks.
    """
    if not is_sharded(model):
        yield
        return
    head, first = model.get_output_embeddings(), model.get_input_embeddings()
    hook = first.register_forward_pre_hook(lambda *_: gather(model, head))
    try:
        yield
    finally:
        hook.remove()
