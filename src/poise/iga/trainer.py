"""IGA on TRL's trainer for supervised fine-tuning."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from importlib.metadata import version
from typing import Any

import torch
from accelerate.utils import DistributedType
from datasets import Dataset
from transformers import TrainerCallback
from trl import SFTTrainer

from ..trl.logs import MetricsLog
from ..trl.preflight import refuse_spread_model
from ..trl.rounding import RoundingCheck
from .batches import DOMAIN, IsomerCollator, IsomerSets, loss_tokens, predicting
from .config import IGAConfig
from .domain_loss import MicroBatch, Normalisation, WatchedModel
from .domain_objective import DomainObjective
from .engine import GradientEngine
from .method import Aggregator, Objective
from .preflight import (
    check_before_loading,
    check_evaluation_rows,
    check_plain_sgd,
    refuse_arguments,
)
from .rows import tell_lost_rows, with_one_end
from .state import IGAStateMixin

logger = logging.getLogger(__name__)


class IGATrainer(IGAStateMixin, SFTTrainer):
    """Trainer for Invariant Gradient Alignment on logical isomer sets.

    TRL's `SFTTrainer` with two changes: a batch is made of whole isomer sets, whose loss is
    averaged by domain, and the gradients of the LoRA factors are those of `GradientEngine`. With
    `domain_weights="tokens"` and `use_engine=False` it is `SFTTrainer` on these batches, bit for
    bit; so is a neutral setting (`space="weight"`, `tau=0`, `projection="none"`).

    With several micro-batches or ranks, weight space averages gradients that were masked in each of
    them; factor space masks once, with the domains' gradients over all of them. Statistics of
    layers are those of the main process. An aggregator is as factor space; an objective is of each
    micro-batch and rank by itself, and its gradients are averaged.

    Args:
        model: as TRL's: a path, a hub id, or a model, also a PEFT model.
        args: the configuration.
        data_collator: as TRL's, for rows: `input_ids` and `labels` to a padded batch.
        train_dataset: rows with `isomer_id`, `domain`, `prompt` and `completion`; a set may lack a
            domain.
        eval_dataset: as TRL's; its rows need no sets, and weigh by tokens.
        processing_class, compute_metrics, callbacks, optimizers, optimizer_cls_and_kwargs,
            preprocess_logits_for_metrics, quantization_config, peft_config: as TRL's.
        compute_loss_func, formatting_func: must be None.

    Raises:
        ValueError: bad input, each with its own message, before the model is loaded where possible.
        TypeError: arguments of another trainer, a data set of another kind.
        UnsupportedAdapter: a trained adapter that cannot be taken apart by domain.

    Reference: IGA (arXiv 2606.05025).
    """

    _tag_names = ["trl", "sft", "iga", "poise"]  # noqa: RUF012 (the host's class attribute)
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
        compute_loss_func: Callable[..., Any] | None = None,
        compute_metrics: Callable[..., Any] | None = None,
        callbacks: Sequence[TrainerCallback] | None = None,
        optimizers: tuple[Any, Any] = (None, None),
        optimizer_cls_and_kwargs: tuple[Any, dict[str, Any]] | None = None,
        preprocess_logits_for_metrics: Callable[..., Any] | None = None,
        quantization_config: Any = None,
        peft_config: Any = None,
        formatting_func: Callable[..., Any] | None = None,
    ) -> None:
        args = IGAConfig("iga-output") if args is None else args
        refuse_arguments(compute_loss_func=compute_loss_func, formatting_func=formatting_func)
        own = optimizers[0] or optimizer_cls_and_kwargs
        model, self.domains = check_before_loading(model, args, train_dataset, peft_config, own)
        check_evaluation_rows(eval_dataset, args)
        self._prepare_state(args)
        self._micro_batch: MicroBatch | None = None
        self._has_sets = self._loss_is_verified = False
        super().__init__(
            model=model,
            args=args,
            data_collator=data_collator,
            train_dataset=train_dataset,
            eval_dataset=eval_dataset,
            processing_class=processing_class,
            compute_metrics=compute_metrics,
            callbacks=list(callbacks or []),
            optimizers=optimizers,
            optimizer_cls_and_kwargs=optimizer_cls_and_kwargs,
            preprocess_logits_for_metrics=preprocess_logits_for_metrics,
            quantization_config=quantization_config,
            peft_config=peft_config,
        )
        self._refuse_unsupported()
        self.data_collator: Any = IsomerCollator(self.data_collator)
        self._prepare_method(args)
        self.add_callback(self._layers_log)
        self.add_callback(RoundingCheck())
        self.add_callback(MetricsLog())

    def _prepare_method(self, args: IGAConfig) -> None:
        if args.needs_engine:
            method = self.baseline if isinstance(self.baseline, Aggregator) else args.iga()
            self.engine = GradientEngine(self.model, method, seed=args.seed)
        if isinstance(self.baseline, Objective):
            autocast = self.accelerator.autocast
            self._objective = DomainObjective(self.baseline, self.model, autocast)

    def _refuse_unsupported(self) -> None:
        refuse_spread_model(self.model)
        if self.accelerator.distributed_type == DistributedType.DEEPSPEED:
            raise ValueError(
                "IGATrainer cannot run under DeepSpeed, whose engine takes gradients over inside "
                "the backward; use DDP"
            )
        if self.is_fsdp_enabled:
            raise ValueError(
                "IGATrainer cannot run under FSDP, where no rank holds a whole matrix; use DDP"
            )
        if self.accelerator.parallelism_config is not None:
            raise ValueError(
                "IGATrainer cannot run with a parallelism_config (sequence, context or tensor "
                "parallelism), which splits sequences or matrices; use DDP"
            )
        if self.args.needs_engine and self.aux_loss_enabled:
            raise ValueError(
                "the router's auxiliary loss belongs to no domain; set router_aux_loss_coef=0"
            )

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
        sets: Any = self.train_dataset
        count = self.args.per_device_train_batch_size
        logger.info(
            "A batch has %d isomer sets, about %d sequences in %d domains.",
            count,
            round(count * sets.sequences / len(sets)),
            len(self.domains),
        )
        return super().train(*args, **kwargs)

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
        return self.engine is not None and self.args.update == "retraction"

    # One optimizer step, in order: watch (each micro-batch), finish, clip, step, log.

    def training_step(self, model: Any, inputs: Any, num_items_in_batch: Any = None) -> Any:
        self._micro_batch = batch = self._describe(inputs, num_items_in_batch)
        watched: Any = nullcontext()
        if self.engine is not None and not batch.is_empty:
            watched = self.engine.collect(
                batch.for_engine, self.args.tau_at(self.state.global_step)
            )
        try:
            with watched:
                return super().training_step(model, inputs, num_items_in_batch)
        finally:
            self._micro_batch = None

    def _describe(self, inputs: Any, items: Any) -> MicroBatch:
        scaler = self.accelerator.scaler
        averages = self.args.average_tokens_across_devices and items is not None
        normalisation = Normalisation(
            items=None if items is None else max(float(items), 1.0),
            world=self.accelerator.num_processes if averages else 1,
            steps=self.current_gradient_accumulation_steps,
            scale=1.0 if scaler is None else scaler.get_scale(),
        )
        domains, labels = inputs[DOMAIN], inputs["labels"]
        counts = loss_tokens(labels, domains, len(self.domains))
        by_tokens = self.args.domain_weights == "tokens"
        return MicroBatch(domains, counts, normalisation, by_tokens, predicting(labels))

    def compute_loss(
        self,
        model: Any,
        inputs: Any,
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> Any:
        inputs = {name: value for name, value in inputs.items() if name != DOMAIN}
        batch = self._micro_batch
        if batch is None:  # an evaluation
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        watched: Any = WatchedModel(model, batch.row_weights())
        if self._objective is not None:
            watched = self._objective.watch(model, batch, self.state.global_step)
        loss = super().compute_loss(watched, inputs, return_outputs, num_items_in_batch)
        self._verify_loss(loss, watched, batch)
        self._domain_losses.add(watched.row_losses, batch)
        return loss

    def _verify_loss(self, loss: Any, watched: Any, batch: MicroBatch) -> None:
        """Whether TRL's loss is of what it was given, or the domains' weights would be lost.

        Its value is looked at once, which makes the host wait.
        """
        if watched.total is None:
            raise RuntimeError(
                "expected TRL to ask the model that its loss is given for log-probabilities "
                "(fused_lm_head=True), found that it did not, so that nothing weighs the domains; "
                f"use the version that Poise declares, found TRL {version('trl')}"
            )
        if self._loss_is_verified or batch.is_empty or self.aux_loss_enabled:
            return
        norm = batch.normalisation
        items = sum(batch.host.counts) if norm.items is None else norm.items
        expected, found = float(watched.total) * norm.world / items, float(loss.detach())
        rounding = 8 * torch.finfo(watched.total.dtype).eps  # of the same sum, a few products
        if abs(found - expected) > rounding * abs(expected):
            raise RuntimeError(
                f"expected TRL's loss to be the mean of what it is given, {expected:.6g}, found "
                f"{found:.6g}, so that domains would not weigh what they should; use the version "
                f"that Poise declares, found TRL {version('trl')}"
            )
        self._loss_is_verified = True

    def _clip_grad_norm(self, model: Any) -> Any:
        self._finish_gradients()
        return super()._clip_grad_norm(model)

    def _get_grad_norm(self, model: Any, grad_norm: Any = None) -> Any:
        if grad_norm is None:  # the host does not clip
            self._finish_gradients()
        return super()._get_grad_norm(model, grad_norm)

    def _finish_gradients(self) -> None:
        if isinstance(self.baseline, Objective):
            self.baseline.finish_step(self._sum_over_ranks)
        if self.engine is not None:
            # A step with learning rate 0 changes nothing, whatever its gradient.
            self.engine.finish((self._get_learning_rate() or 1.0) if self._retracts else None)
