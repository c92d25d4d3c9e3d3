"""The teacher: it starts from the student, stands still or follows it, and can be saved."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from types import FunctionType
from typing import Any

import torch
from accelerate.utils import is_peft_model
from torch import Tensor, nn
from transformers import TrainerCallback

from ..loss.heads import SplitModel, split_causal_lm
from ..reading import hidden_states
from ..trl.contract import (
    SDPOTrainer,
    disable_gradient_checkpointing,
    is_pure_lora_training,
    use_adapter,
)
from ..trl.preflight import keep_whole
from .refresh import RefreshGate, RefreshOnce

TEACHER_ADAPTER = "teacher"


class TeacherMixin(SDPOTrainer):  # type: ignore[misc]
    """Chooses the teacher by the arguments, and asks it."""

    teacher: Teacher | None = None  # one that changes in a run, or that has its own adapter

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

    @torch.no_grad()
    def _teacher_hidden_states(self, batch: dict[str, Tensor]) -> tuple[SplitModel, Tensor]:
        """The teacher and what it makes of a batch: (rows, T, H).

        With `share_prompts`, the prompt of a group is read once, unless it is one rollout's own.
        """
        teacher = split_causal_lm(self.accelerator.unwrap_model(self.teacher_model))
        ids, mask = batch["teacher_input_ids"], batch["teacher_attention_mask"]
        keep, hidden = batch["completion_ids"].size(1), None
        with self._get_teacher_context_for_self_distillation(), self.accelerator.autocast():
            if self.args.share_prompts and not self.is_fsdp_enabled:
                # With checkpointing, layers in training mode pass over the cache.
                with disable_gradient_checkpointing(
                    teacher.model, self.args.gradient_checkpointing_kwargs
                ):
                    hidden = hidden_states(teacher.model, teacher.backbone, ids, mask, keep)
            if hidden is None:
                hidden = teacher.hidden_states(ids, mask, keep)
        return teacher, hidden

    def _teacher_head(self, teacher: SplitModel) -> Any:
        """The teacher's head; an adapter on it is switched for each of its tiles."""
        if not teacher.head.has_adapter:
            return teacher.head

        def head(hidden: Tensor) -> Tensor:
            with self._get_teacher_context_for_self_distillation():
                return teacher.head(hidden)

        return head


def copy_as_teacher(student: nn.Module) -> nn.Module:
    """A frozen copy of the student, in evaluation mode, without what Accelerate put around its
    forward.

    Raises:
        ValueError: the student's forward is a function of the user's, which a copy would share.
    """
    teacher = copy.deepcopy(student)
    wrapped = vars(teacher).pop("forward", None)
    forward = vars(teacher).pop("_original_forward", wrapped)  # Accelerate's name
    if isinstance(forward, FunctionType):
        raise ValueError(
            "the model's forward is a plain function, which may run the student where the "
            "teacher is asked; expected a method: model.forward = types.MethodType(function, model)"
        )
    if forward is not None:
        teacher.forward = forward  # of the copy: a method is copied with its model
    teacher.requires_grad_(False)
    teacher.eval()
    return teacher


def add_teacher_adapter(model: Any, *, from_student: bool) -> None:
    """Gives a LoRA model a second adapter, frozen, that holds the teacher's factors.

    What the model saves and pushes from then on has the other adapters alone, unless
    `selected_adapters` are asked for. A teacher of an earlier trainer is replaced.

    Args:
        model: a `PeftModel` in pure LoRA training.
        from_student: start from the student's factors; else from zeros, as TRL does.

    Raises:
        ValueError: the model has an adapter of that name.
    """
    if isinstance(ours := vars(model).get("save_pretrained"), _SavesSelected):  # an earlier trainer
        model.save_pretrained = ours.func
        if TEACHER_ADAPTER in model.peft_config:
            model.delete_adapter(TEACHER_ADAPTER)
    if TEACHER_ADAPTER in model.peft_config:
        raise ValueError(
            f"the model has an adapter called {TEACHER_ADAPTER!r}, as the teacher is called; "
            "load it under another name (adapter_name=...), or delete it"
        )
    student_adapter = model.active_adapter
    save_without_teacher(model)
    with kept_trainability(model):
        with torch.random.fork_rng():  # the initialisation that the copy overwrites draws nothing
            config = copy.copy(model.peft_config[student_adapter])
            config.init_lora_weights = True  # PiSSA and its like would change the base once more
            model.add_adapter(TEACHER_ADAPTER, config)
        model.set_adapter(student_adapter)
    students = dict(model.named_parameters())
    with torch.no_grad():
        for name, param in _adapter_parameters(model, TEACHER_ADAPTER).items():
            param.requires_grad_(False)
            source = students[name.replace(f".{TEACHER_ADAPTER}", f".{student_adapter}")]
            param.copy_(source if from_student else torch.zeros_like(source))


def save_without_teacher(model: Any) -> None:
    """Has a model save and push the adapters that it has now, unless it is asked for others."""
    model.save_pretrained = _SavesSelected(
        model.save_pretrained, selected_adapters=list(model.peft_config)
    )


class _SavesSelected(partial):  # type: ignore[type-arg]
    """A `save_pretrained` of ours, told from a user's."""


@contextmanager
def kept_trainability(model: nn.Module) -> Iterator[None]:
    """Undoes what a switch of adapters does to `requires_grad`: PEFT trains all of the active one,
    also factors that a user has frozen."""
    flags = [(param, param.requires_grad) for param in model.parameters()]
    try:
        yield
    finally:
        for param, flag in flags:
            param.requires_grad_(flag)


def _adapter_parameters(model: nn.Module, adapter: str) -> dict[str, nn.Parameter]:
    return {
        name: param
        for name, param in model.named_parameters()
        if name.endswith(f".{adapter}") or f".{adapter}." in name
    }


class Teacher:
    """A teacher that is updated from its student, and can be saved and restored.

    Args:
        student: the unwrapped model that is trained.
        teacher: a separate copy of it, or None when the teacher is a second LoRA adapter inside it.
    """

    kind: str  # of updating, which a checkpoint must have too

    def __init__(self, student: nn.Module, teacher: nn.Module | None) -> None:
        self._student = student
        self._teacher = teacher

    def _pairs(self) -> dict[str, tuple[Tensor, Tensor]]:
        """Teacher and student parameter by the teacher's name."""
        students = dict(self._student.named_parameters())
        if self._teacher is not None:
            return {n: (p, students[n]) for n, p in self._teacher.named_parameters()}
        adapter: Any = self._student.active_adapter  # type: ignore[attr-defined]
        return {
            name: (param, students[name.replace(f".{TEACHER_ADAPTER}", f".{adapter}")])
            for name, param in _adapter_parameters(self._student, TEACHER_ADAPTER).items()
        }

    def state_dict(self) -> dict[str, Tensor]:
        """The parameters by name, on the CPU, safe to keep."""
        return {
            name: teacher.detach().cpu().clone(memory_format=torch.contiguous_format)
            for name, (teacher, _) in self._pairs().items()
        }

    @torch.no_grad()
    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Restores `state_dict`'s output.

        Raises:
            ValueError: names or shapes differ from this teacher's.
        """
        pairs = self._pairs()
        if state.keys() != pairs.keys():
            names = sorted(state.keys() ^ pairs.keys())
            raise ValueError(
                f"the checkpoint's teacher does not fit this model: {len(names)} parameters "
                f"differ, e.g. {names[0]!r}; resume with the model and adapter that wrote it"
            )
        for name, (teacher, _) in pairs.items():
            if state[name].shape != teacher.shape:
                raise ValueError(
                    f"the checkpoint's teacher does not fit this model: {name!r} has shape "
                    f"{tuple(state[name].shape)}, expected {tuple(teacher.shape)}; resume with the "
                    "model and adapter that wrote it"
                )
            teacher.copy_(state[name])

    def progress(self) -> dict[str, Any]:
        """What it knows beside its parameters, as plain JSON values."""
        return {"kind": self.kind}

    def load_progress(self, state: dict[str, Any]) -> None:
        """Restores `progress`' output.

        Raises:
            ValueError: of a teacher of another kind.
        """
        if state["kind"] != self.kind:
            raise ValueError(
                f"the checkpoint's teacher is of kind {state['kind']!r}, expected {self.kind!r}; "
                "resume with the teacher_model_kind and teacher_refresh that it was saved with, or "
                "start a new run in another output_dir"
            )


class StandingTeacher(Teacher):
    """Stays as it was at the start."""

    kind = "base"


def adapter_changes_model(model: nn.Module) -> bool:
    """Whether a LoRA model's trained adapters change what it computes, as trained ones do."""
    return any(
        bool(param.any())
        for name, param in model.named_parameters()
        if param.requires_grad and ("lora_B" in name or "lora_embedding_A" in name)
    )


class RefreshedTeacher(StandingTeacher):
    """Stands still until its rule says that the student becomes the teacher.

    Args:
        student, teacher: as `Teacher`'s.
        rule: a `RefreshOnce` or a `RefreshGate`.
    """

    def __init__(
        self, student: nn.Module, teacher: nn.Module | None, rule: RefreshOnce | RefreshGate
    ) -> None:
        super().__init__(student, teacher)
        self.rule = rule
        self.kind = "once" if isinstance(rule, RefreshOnce) else "gated"

    @torch.no_grad()
    def update(self, figures: Mapping[str, float], step: int, steps: int) -> str | None:
        """Takes an optimizer step, of `steps`; says why, if it has refreshed the teacher."""
        why = self.rule.update(figures, step, steps)
        if why is not None:
            for teacher, student in self._pairs().values():
                teacher.copy_(student)
        return why

    def progress(self) -> dict[str, Any]:
        return super().progress() | self.rule.state_dict()

    def load_progress(self, state: dict[str, Any]) -> None:
        super().load_progress(state)
        self.rule.load_state_dict(state)


class EMATeacher(Teacher, TrainerCallback):  # type: ignore[misc]
    r"""Exponential moving average of the student's trained parameters, after every optimizer step.

    .. math:: \phi \leftarrow (1 - \beta)\,\phi + \beta\,\theta

    Args:
        student, teacher: as `Teacher`'s.
        rate: :math:`\beta`, TRL's `teacher_update_rate`. With 0 it only saves and restores a
            teacher that something else updates.
        every: optimizer steps between two updates, TRL's `teacher_sync_steps`.

    With LoRA the average is over the factors A and B, one by one, and starts from the student's.
    The product of averaged factors is not the average of products, but differs from it in second
    order of the change within the averaging window.

    Choice: an average in bfloat16 or float16 would round small updates away (a rate of 0.05 needs
    more bits than they have), so it is kept in float32 and the teacher holds its rounding.
    """

    kind = "ema"

    def __init__(
        self, student: nn.Module, teacher: nn.Module | None, rate: float, every: int
    ) -> None:
        super().__init__(student, teacher)
        self._rate = rate
        self._every = every
        self._averages: dict[str, Tensor] = {
            name: param.detach().float()
            for name, (param, _) in self._pairs().items()
            if rate > 0 and param.dtype in (torch.bfloat16, torch.float16)
        }

    @torch.no_grad()
    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step % self._every != 0:
            return
        for name, (teacher, student) in self._pairs().items():
            average = self._averages.get(name, teacher)
            average.mul_(1.0 - self._rate).add_(student.detach(), alpha=self._rate)
            if average is not teacher:
                teacher.copy_(average)

    def state_dict(self) -> dict[str, Tensor]:
        """The averages by name, on the CPU, safe to keep."""
        return super().state_dict() | {
            name: average.cpu().clone(memory_format=torch.contiguous_format)
            for name, average in self._averages.items()
        }

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        super().load_state_dict(state)
        for name, average in self._averages.items():
            average.copy_(state[name])
