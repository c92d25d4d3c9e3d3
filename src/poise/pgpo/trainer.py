"""PGPO on TRL's SDPO trainer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from accelerate.logging import get_logger
from accelerate.utils import DistributedType, DynamoBackend, is_peft_model
from transformers import TrainerCallback

from ..loss.heads import Purpose, split_causal_lm
from ..models import fold_output_head
from ..trl.contract import is_pure_lora_training, use_adapter
from ..trl.devices import keep_whole, refuse_spread_model
from ..trl.guards import WarmupCheck
from ..trl.metrics_log import MetricsLog
from ..trl.rounding import RoundingCheck
from .config import PGPOConfig
from .exact_resume import ExactResumeMixin
from .optimizer_step import OptimizerStepMixin, StepEnd
from .preflight import check_before_loading, check_chat_template, first_rows
from .rollouts import RolloutMixin
from .shared_prompts import SharedPromptsMixin
from .teacher import (
    TEACHER_ADAPTER,
    EMATeacher,
    StandingTeacher,
    adapter_changes_model,
    add_teacher_adapter,
    copy_as_teacher,
    kept_trainability,
    save_without_teacher,
)
from .teacher_context import RolloutTeacherContextBuilder
from .teacher_refresh import RefreshedTeacher

logger = get_logger(__name__)

DISTANCE = Purpose("multiplier='distance'", "set multiplier='information'")


class PGPOTrainer(  # type: ignore[misc]
    OptimizerStepMixin, ExactResumeMixin, RolloutMixin, SharedPromptsMixin
):
    """Trainer for Physics-Guided Policy Optimization.

    TRL's `SDPOTrainer`, with steps of a set distance (`StepScale`), a base teacher, and a policy
    gradient for what succeeds (`routing`). With `multiplier="none"`, `teacher_model_kind="ema"` it
    is SDPO. Its other changes fix TRL's trainer, each on a switch of `PGPOConfig`, or where its
    results would be wrong (docs/pgpo.md); with all of them off it equals it bit for bit.

    Args:
        model: as TRL's: a path, a hub id, or a model.
        reward_funcs: as TRL's; a function may also return `(reward, text)` pairs, whose text is
            feedback on that completion for the teacher.
        args: the configuration.
        train_dataset: rows with `prompt` (text, or messages that end with the user's), optionally
            `privileged_context`, and columns for rewards.
        eval_dataset, processing_class, reward_processing_classes, callbacks, optimizers,
            peft_config: as TRL's.

    Raises:
        ValueError: bad input, each with its own message, before the model is loaded where possible.
        TypeError: a reward function that returns something else than one entry per completion; a
            stream of prompts.

    Reference: PGPO (arXiv 2606.03620), SDPO (arXiv 2601.20802).
    """

    config_cls = PGPOConfig
    _tag_names = ["trl", "sdpo", "pgpo", "poise"]  # noqa: RUF012 (the host's class attribute)
    _name = "PGPO"
    _paper = {"title": "Physics-Guided Policy Optimization", "id": "2606.03620"}  # noqa: RUF012

    def __init__(
        self,
        model: Any,
        reward_funcs: Any = None,
        args: PGPOConfig | None = None,
        train_dataset: Any = None,
        eval_dataset: Any = None,
        processing_class: Any = None,
        reward_processing_classes: Any = None,
        callbacks: Sequence[TrainerCallback] | None = None,
        optimizers: tuple[Any, Any] = (None, None),
        peft_config: Any = None,
    ) -> None:
        args = PGPOConfig("pgpo-output") if args is None else args
        model = check_before_loading(model, args, train_dataset, eval_dataset, reward_funcs)
        args.check_optimizer(optimizers[0])
        self._prepare_steps(args)
        super().__init__(
            model=model,
            reward_funcs=reward_funcs,
            args=args,
            train_dataset=train_dataset,
            eval_dataset=eval_dataset,
            processing_class=processing_class,
            reward_processing_classes=reward_processing_classes,
            callbacks=list(callbacks or []),
            optimizers=optimizers,
            peft_config=peft_config,
        )
        self._refuse_unsupported()
        self._prepare_model()
        self._prepare_rollouts(first_rows(train_dataset, 1))
        self.add_callback(StepEnd(self))
        self.add_callback(WarmupCheck())
        self.add_callback(RoundingCheck())
        self.add_callback(MetricsLog())

    def _refuse_unsupported(self) -> None:
        refuse_spread_model(self.model)
        if self.accelerator.distributed_type == DistributedType.DEEPSPEED:
            raise ValueError(
                "PGPOTrainer cannot run under DeepSpeed, whose engine steps the optimizer inside "
                "the backward; use DDP, or TRL's SDPOTrainer"
            )
        compiler = self.accelerator.state.dynamo_plugin.backend
        if self.args.tiled_loss and compiler != DynamoBackend.NO:
            raise ValueError(
                "Accelerate is told to compile the model (--dynamo_backend, or the variable "
                "ACCELERATE_DYNAMO_BACKEND), but the tiled loss runs its backbone and its head one "
                "by one; leave that out, or set tiled_loss=False"
            )
        whole = ("tiled_loss", "exact_resume", "teacher_from_student")
        if self.is_fsdp_enabled and self.args.multiplier == "distance":
            raise ValueError(
                "under FSDP no rank holds a whole model, on which multiplier='distance' measures a "
                "step; set multiplier='information', or use DDP"
            )
        if self.is_fsdp_enabled and (on := [name for name in whole if getattr(self.args, name)]):
            raise ValueError(
                f"under FSDP no rank holds a whole model, which {', '.join(on)} need; set them to "
                "False, or use DDP"
            )

    def _prepare_model(self) -> None:
        if self._uses_tiled_loss():
            split_causal_lm(self.model)  # refuses what it cannot split
            fold_output_head(self.model)
        elif self.args.multiplier == "distance":
            split_causal_lm(self.model, DISTANCE)

    def _prepare_rollouts(self, rows: list[dict[str, Any]]) -> None:
        check_chat_template(rows, self.processing_class)
        self.teacher_context_builder = RolloutTeacherContextBuilder(self)
        self._wrap_reward_functions()
        if self.args.check_rewards:
            self._check_reward_functions(rows[0])

    def _setup_teacher_model(self) -> None:
        """TRL's; but teachers start from the student in memory, change as the arguments say, and
        can be saved."""
        args, kind = self.args, self.args.teacher_model_kind
        refreshes = args.teacher_refresh != "never"
        changes = kind == "ema" or refreshes
        # With its adapters off, as TRL has a base teacher, such a student is another model.
        starts_changed = (
            kind == "base" and args.teacher_from_student and adapter_changes_model(self.model)
        )
        is_lora = is_pure_lora_training(self.model, self.accelerator)
        is_adapter = (changes or starts_changed) and is_lora
        if starts_changed and is_peft_model(self.model) and not is_lora:
            raise ValueError(
                "the base teacher is the student as it is at the start, whose adapter changes the "
                "model already; expected LoRA factors alone to be trained, found other weights "
                "too; train so, or set teacher_from_student=False, with which the teacher is the "
                "model without adapters"
            )
        is_copy = (
            kind in ("ema", "base") and not is_peft_model(self.model) and not self.is_fsdp_enabled
        )
        if refreshes and not (is_adapter or is_copy):
            raise ValueError(
                f"teacher_refresh={args.teacher_refresh!r} copies the student into its teacher, "
                "expected full training or LoRA factors alone, without FSDP; train so, or set "
                "teacher_refresh='never'"
            )
        if is_adapter and (args.teacher_from_student or args.exact_resume):
            add_teacher_adapter(self.model, from_student=args.teacher_from_student)
            self.teacher_model = self.model
            self._add_teacher(None)
        elif is_copy and args.teacher_from_student:
            teacher = copy_as_teacher(self.model)
            # As TRL prepares its own: the forward runs under autocast.
            self.teacher_model = self.accelerator.prepare_model(teacher, evaluation_mode=True)
            if changes:
                self._add_teacher(teacher)
        else:
            keep_whole(args)  # TRL loads the teacher by its name
            if is_adapter:
                save_without_teacher(self.model)
            super()._setup_teacher_model()
            if is_copy and kind == "ema" and args.exact_resume:
                self.teacher = EMATeacher(self.model, self.teacher_model, 0.0, 1)  # saves alone

    @contextmanager
    def _get_teacher_context_for_self_distillation(self) -> Iterator[None]:
        """TRL's, which for a base teacher takes all adapters off, but a refreshed one has its own;
        what is trained stays as the user has set it."""
        if isinstance(self.teacher, StandingTeacher) and is_peft_model(self.model):
            switched = use_adapter(self.model, adapter_name=TEACHER_ADAPTER)
        else:
            switched = super()._get_teacher_context_for_self_distillation()
        with kept_trainability(self.model), switched:
            yield

    def _add_teacher(self, teacher: Any) -> None:
        args, rule = self.args, self.args.refresh_rule()
        if rule is not None:
            self.teacher = RefreshedTeacher(self.model, teacher, rule)
        elif args.teacher_model_kind == "base":
            self.teacher = StandingTeacher(self.model, teacher)
        else:
            self.teacher = EMATeacher(
                self.model, teacher, args.teacher_update_rate, args.teacher_sync_steps
            )
            self.add_callback(self.teacher)

    def _after_optimizer_step(self) -> None:
        if isinstance(self.teacher, RefreshedTeacher):
            self._refresh_teacher(self.teacher)
        super()._after_optimizer_step()

    def _refresh_teacher(self, teacher: RefreshedTeacher) -> None:
        """Takes the step's figures, which are of all ranks: all decide the same."""
        step = self.state.global_step + 1
        why = teacher.update(self._watched, step, self.state.max_steps)
        self._metrics["train"]["pgpo/teacher_refreshes"].append(teacher.rule.refreshes)
        if why is not None:
            logger.info("Step %d: the student becomes the teacher; %s.", step, why)
