"""Teachers that start from the student, and can be saved and restored; the EMA teacher."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from types import FunctionType
from typing import Any

import torch
from torch import Tensor, nn
from transformers import TrainerCallback

TEACHER_ADAPTER = "teacher"


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
