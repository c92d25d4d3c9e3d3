"""IGA on TRL's trainer for supervised fine-tuning."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

from accelerate.utils import DistributedType
from datasets import Dataset
from transformers import TrainerCallback
from trl import SFTTrainer

from ..sharding import gather, is_sharded, loss_inside
from ..trl.logs import MetricsLog
from ..trl.preflight import refuse_other_shards, refuse_spread_model
from ..trl.rounding import RoundingCheck
from .batches import DOMAIN, IsomerCollator, IsomerSets, tell_lost_rows, with_one_end
from .config import IGAConfig
from .domains import DomainBatch, weigh_domains, weighted_sum
from .engine import GradientEngine
from .loss import DomainObjective, describe, domain_means, share_of
from .method import Aggregator, Objective
from .preflight import (
    check_before_loading,
    check_evaluation_rows,
    check_fsdp,
    check_plain_sgd,
    refuse_arguments,
)
from .state import IGAStateMixin

logger = logging.getLogger(__name__)


class IGATrainer(IGAStateMixin, SFTTrainer):
    """Trainer for Invariant Gradient Alignment on logical isomer sets.

    TRL's `SFTTrainer` with two changes: a batch is made of whole isomer sets, whose loss is
    sum_k w_k L_k over the domains, and the gradients of the LoRA factors are those of
    `GradientEngine`. With `domain_weights="tokens"` and `iga_method="erm"` it is `SFTTrainer` on
    these batches, bit for bit; so is a neutral setting (`iga_space="weight"`, `tau=0`,
    `projection="none"`).

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
        self._micro_batch: DomainBatch | None = None
        self._has_sets = False
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
            self._objective = DomainObjective(
                self.baseline, self.model, args.by, self.accelerator.autocast
            )

    def _refuse_unsupported(self) -> None:
        refuse_spread_model(self.model)
        if self.accelerator.distributed_type == DistributedType.DEEPSPEED:
            raise ValueError(
                "IGATrainer cannot run under DeepSpeed, whose engine takes gradients over inside "
                "the backward; use DDP or FSDP2"
            )
        refuse_other_shards(self.accelerator, "IGATrainer")
        if self.is_fsdp_enabled:
            check_fsdp(self.accelerator.state.fsdp_plugin, self.args)
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
        logger.info(
            "A batch has %d isomer sets, about %d sequences in %d domains.",
            self._sets_per_batch,
            round(self._sets_per_batch * sets.sequences / len(sets)),
            len(self.domains),
        )
        return super().train(*args, **kwargs)

    @property
    def _sets_per_batch(self) -> int:
        size: int = self.args.per_device_train_batch_size
        return size // len(self.domains)

    def get_train_dataloader(self) -> Any:
        """TRL's, whose items are sets where `per_device_train_batch_size` counts sequences."""
        return self._get_dataloader(
            dataset=self.train_dataset,
            description="Training",
            batch_size=self._sets_per_batch,
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
        self._micro_batch = batch = describe(inputs["labels"], domains, len(self.domains))
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
        batch = self._micro_batch
        if batch is None:  # an evaluation
            inputs = {name: value for name, value in inputs.items() if name != DOMAIN}
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        options = {"output_router_logits": True} if self.aux_loss_enabled else {}
        # What takes the head's logits itself does so while a sharded model runs.
        is_inside = is_sharded(model) and self._objective is not None and self._objective.has_head
        run = model.forward if is_inside else model

        def work() -> tuple[Any, Any]:
            head: Any = nullcontext()
            if self._objective is not None:
                head = self._objective.watch()
            with head, gathered_head(model):
                outputs = run(**inputs, **options, use_cache=False, fused_lm_head=True)
            return self._loss_of(outputs, inputs["labels"], batch, num_items_in_batch), outputs

        if self._objective is not None:
            self._objective.verify(inputs["input_ids"])
        loss, outputs = loss_inside(model, work) if is_inside else work()
        self._log_tokens(outputs, inputs)
        return (loss, outputs) if return_outputs else loss

    def _loss_of(self, outputs: Any, labels: Any, batch: DomainBatch, items: Any) -> Any:
        """share * sum_k w_k L_k, or share * objective; its backward is transformers'."""
        by, steps = self.args.by, self.current_gradient_accumulation_steps
        world, scaler = 1, self.accelerator.scaler
        if self.args.average_tokens_across_devices and items is not None:
            world = self.accelerator.num_processes
        number = None if items is None else max(float(items), 1.0)
        scale = 1.0 if scaler is None else scaler.get_scale()
        share = share_of(batch, by, number, world, steps, scale)

        per_token = -outputs.log_probs  # 0 where there is no loss
        losses = domain_means(per_token, batch)
        self._domain_losses.add(losses, batch.counts)
        if not batch.present:
            loss = per_token.sum()
        elif self.engine is not None:
            loss = self.engine.weigh(losses, by, *share)
        elif self._objective is not None:
            entropies = domain_means(outputs.entropy, batch)
            step = self.state.global_step
            loss = share.own * self._objective(losses, entropies, labels, batch, step)
        elif by == "tokens":  # a mean over all tokens, as TRL takes it, to the bit
            loss = per_token.sum() / (sum(batch.host.counts) if number is None else number) * world
        else:
            loss = share.own * weighted_sum(weigh_domains(batch.host.counts, by), losses)
        if self.aux_loss_enabled:
            parts = 1 if items is None else steps
            loss = loss + self.router_aux_loss_coef * outputs.aux_loss / parts
        return loss

    def _log_tokens(self, outputs: Any, inputs: Any) -> None:
        """Entropy, accuracy and numbers of tokens, over all ranks, as TRL logs them."""
        metrics, gather = self._metrics["train"], self.accelerator.gather_for_metrics
        tokens = gather(outputs.label_mask.sum()).sum()
        for name, values in (
            ("entropy", outputs.entropy.detach()),
            ("mean_token_accuracy", outputs.is_top1),
        ):
            total = gather(values.sum()).sum()
            metrics[name].append((total / tokens).item() if tokens > 0 else 0.0)
        self._total_train_tokens += gather(inputs["attention_mask"].sum()).sum().item()
        metrics["num_tokens"] = [self._total_train_tokens]
        if self.aux_loss_enabled:
            metrics["aux_loss"].append(gather(outputs.aux_loss).mean().item())

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
