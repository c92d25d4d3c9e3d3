"""The teacher: it starts from the student, stands still or follows it, and can be saved."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import FunctionType
from typing import Any

import torch
from accelerate.utils import fsdp2_canonicalize_names, fsdp2_prepare_model, is_peft_model
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.distributed.checkpoint.filesystem import FileSystemReader
from torch.distributed.checkpoint.state_dict_loader import load as read_checkpoint
from torch.distributed.checkpoint.state_dict_saver import save as write_checkpoint

from ..loss.heads import SplitModel, split_causal_lm
from ..prompt_cache import hidden_states
from ..sharding import fill, gather, local, read_inside, reshard, whole
from ..trl.checkpoints import TEACHER, TEACHER_SHARDS
from ..trl.contract import (
    SDPOTrainer,
    disable_gradient_checkpointing,
    is_pure_lora_training,
    use_adapter,
)
from ..trl.preflight import keep_whole, refuse_other_shards
from .refresh import RefreshGate, RefreshOnce

TEACHER_ADAPTER = "teacher"


class TeacherMixin(SDPOTrainer):  # type: ignore[misc]
    """Chooses the teacher by the arguments, and asks it."""

    teacher: Teacher | None = None  # one that changes in a run, or that has its own adapter
    _undo_casts: Callable[[Any], None]  # of TRL's, before the teacher is made of the student

    def _setup_teacher_model(self) -> None:
        """TRL's; but teachers start from the student in memory, change as the arguments say, and
        can be saved."""
        refuse_other_shards(self.accelerator, "PGPOTrainer")
        self._undo_casts(self.model)
        args, kind = self.args, self.args.teacher_model_kind
        refreshes = args.teacher_refresh != "never"
        # With its adapters off, as TRL has a base teacher, such a student is another model.
        starts_changed = (
            kind == "base" and args.teacher_from_student and adapter_changes_model(self.model)
        )
        changes = kind == "ema" or refreshes
        is_lora = is_pure_lora_training(self.model, self.accelerator)
        is_adapter = (changes or starts_changed) and is_lora
        is_copy = kind in ("ema", "base") and not is_peft_model(self.model)
        if (refreshes or starts_changed) and not (is_adapter or is_copy):
            way_out = " and teacher_from_student=False (the model without adapters)"
            raise ValueError(
                "the teacher is a copy of the student, which is refreshed or has an adapter that "
                "changes the model already; expected full training or LoRA factors alone, found "
                "other weights too; train so, or set teacher_refresh='never'"
                + (way_out if starts_changed else "")
            )
        # Under FSDP TRL adds its adapter to shards, which fails.
        is_ours = args.teacher_from_student or args.exact_resume or self.is_fsdp_enabled
        teacher, rate = None, args.teacher_update_rate
        if is_adapter and is_ours:
            add_teacher_adapter(self.model, from_student=args.teacher_from_student)
            self.teacher_model = self.model
        elif is_copy and args.teacher_from_student:
            teacher = copy_as_teacher(self.model)
            if self.is_deepspeed_enabled and args.bf16:  # as the engine will cast the student
                teacher.bfloat16()
            if self.is_fsdp_enabled:  # in the student's units
                self.teacher_model = fsdp2_prepare_model(self.accelerator, teacher)
            else:  # as TRL prepares its own: the forward runs under autocast
                self.teacher_model = self.accelerator.prepare_model(teacher, evaluation_mode=True)
            if not changes:
                return
        else:
            keep_whole(args)  # TRL loads the teacher by its name
            if is_adapter:
                save_without_teacher(self.model)
            super()._setup_teacher_model()
            if not (is_copy and kind == "ema" and args.exact_resume):
                return
            teacher, rate = self.teacher_model, 0.0  # TRL updates it
        if kind == "base":
            self.teacher = Teacher(self.model, teacher, args.refresh_rule())
        else:
            self.teacher = EMATeacher(self.model, teacher, rate, args.teacher_sync_steps)

    @contextmanager
    def _get_teacher_context_for_self_distillation(self) -> Iterator[None]:
        """TRL's, which for a base teacher takes all adapters off, but ours may have its own; what
        is trained stays as the user has set it."""
        has_own = self.teacher is not None and self.args.teacher_model_kind == "base"
        if has_own and is_peft_model(self.model):
            switched = use_adapter(self.model, adapter_name=TEACHER_ADAPTER)
        else:
            switched = super()._get_teacher_context_for_self_distillation()
        with kept_trainability(self.model), switched:
            yield

    @torch.no_grad()
    def _teacher_hidden_states(self, batch: dict[str, Tensor]) -> tuple[SplitModel, Tensor]:
        """The teacher and what it makes of a batch: (rows, T, H)."""
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
                read = partial(teacher.hidden_states, ids, mask, keep)
                hidden = read_inside(teacher.model, read)
        return teacher, hidden

    @contextmanager
    def _teacher_head_gathered(self, teacher: SplitModel) -> Iterator[None]:
        """The head of a sharded teacher ready for the loss; that of the student's own model is
        gathered in the student's forward."""
        is_apart = teacher.model is not self.accelerator.unwrap_model(self.model)
        try:
            if is_apart:
                gather(teacher.model, teacher.head.projection)
            yield
        finally:
            if is_apart:
                reshard(teacher.model)

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
    forward. ValueError for a forward that is a user's function, which the copy would share."""
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
    """Gives a `PeftModel` in pure LoRA training a second adapter, frozen, that holds the teacher's
    factors: the student's, or zeros as TRL has it.

    What the model saves and pushes from then on has the other adapters alone. A teacher of an
    earlier trainer is replaced; of an adapter of the user's with that name ValueError.
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
    with torch.no_grad():
        for teacher, student in _factors(model, dict(model.named_parameters())).values():
            teacher.requires_grad_(False)
            teacher.copy_(student if from_student else torch.zeros_like(student))


def _factors(model: Any, named: Mapping[str, Tensor]) -> dict[str, tuple[Tensor, Tensor]]:
    """Of a LoRA model's parameters the teacher's factor and the student's, by the first's name."""
    teacher, student = f".{TEACHER_ADAPTER}", f".{model.active_adapter}"
    return {
        name: (param, named[name.replace(teacher, student)])
        for name, param in named.items()
        if f"{teacher}." in f"{name}."
    }


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


def _parameters_by_name(model: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters at rest, of a sharded model its shards; names without what Accelerate puts
    around layers."""
    reshard(model)
    named: dict[str, nn.Parameter] = fsdp2_canonicalize_names(dict(model.named_parameters()))
    return named


def adapter_changes_model(model: nn.Module) -> bool:
    """Whether a LoRA model's trained adapters change what it computes, as trained ones do."""
    return any(
        bool(param.any())
        for name, param in model.named_parameters()
        if param.requires_grad and ("lora_B" in name or "lora_embedding_A" in name)
    )


class Teacher:
    """A teacher that stands still, until a rule says that the student becomes it; can be saved.

    `student` is the unwrapped model that is trained, `teacher` a copy of it, or None when the
    teacher is a second LoRA adapter inside it.
    """

    kind = "base"  # of updating, which a checkpoint must have too

    def __init__(
        self,
        student: nn.Module,
        teacher: nn.Module | None,
        rule: RefreshOnce | RefreshGate | None = None,
    ) -> None:
        self._student, self._teacher, self.rule = student, teacher, rule
        if rule is not None:
            self.kind = "once" if isinstance(rule, RefreshOnce) else "gated"

    @torch.no_grad()
    def update(self, figures: Mapping[str, float], step: int, steps: int) -> str | None:
        """Takes an optimizer step, of `steps`; says why, if it has refreshed the teacher."""
        why = self.rule.update(figures, step, steps) if self.rule is not None else None
        if why is not None:
            for teacher, student in self._pairs().values():
                local(teacher).copy_(local(student))
        return why

    def _pairs(self) -> dict[str, tuple[Tensor, Tensor]]:
        """Teacher and student parameter by the teacher's name; of sharded models their shards,
        which lie alike."""
        students = _parameters_by_name(self._student)
        if self._teacher is None:
            return _factors(self._student, students)
        return {n: (p, students[n]) for n, p in _parameters_by_name(self._teacher).items()}

    def _kept(self) -> dict[str, Tensor]:
        """What a checkpoint holds of it, by name."""
        return {name: teacher.detach() for name, (teacher, _) in self._pairs().items()}

    def state_dict(self, *, keep: bool = True) -> dict[str, Tensor]:
        """The parameters by name, on the CPU, safe to keep. Those of a sharded teacher are gathered
        one by one by all ranks, to be held where `keep` says so."""
        state = {}
        for name, tensor in self._kept().items():
            gathered = whole(tensor)
            if keep:
                state[name] = gathered.cpu().clone(memory_format=torch.contiguous_format)
        return state

    @torch.no_grad()
    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Restores `state_dict`'s output, whole on every rank; ValueError where it does not fit."""
        self._check({name: tensor.shape for name, tensor in state.items()})
        for name, tensor in self._kept().items():
            fill(tensor, state[name])
        self._round()

    def save(self, folder: Path, *, in_shards: bool = False, keep: bool = True) -> None:
        """Writes what `state_dict` returns: each rank its shards, or one that keeps it a file, as
        the model is saved; every rank calls this."""
        if in_shards:
            write_checkpoint(self._kept(), checkpoint_id=folder / TEACHER_SHARDS)
        elif state := self.state_dict(keep=keep):
            save_file(state, folder / TEACHER)

    @torch.no_grad()
    def load(self, folder: Path) -> None:
        """Restores what `save` has written, however many ranks did; every rank calls this.
        ValueError where it does not fit."""
        shards = folder / TEACHER_SHARDS
        if not shards.is_dir():
            self.load_state_dict(load_file(folder / TEACHER))
            return
        saved: Any = FileSystemReader(shards).read_metadata().state_dict_metadata
        self._check({name: tensor.size for name, tensor in saved.items()})
        read_checkpoint(self._kept(), checkpoint_id=shards)
        self._round()

    def _round(self) -> None:
        """Makes the teacher of what is kept, where that is more."""

    def _check(self, saved: Mapping[str, torch.Size]) -> None:
        own = {name: tensor.shape for name, tensor in self._kept().items()}
        differ = sorted(n for n in saved.keys() | own.keys() if saved.get(n) != own.get(n))
        if differ:
            found, expected = (shapes.get(differ[0], "none") for shapes in (saved, own))
            raise ValueError(
                f"the checkpoint's teacher does not fit this model: {len(differ)} parameters "
                f"differ, e.g. {differ[0]!r}, expected {expected}, found {found}; resume with the "
                "model and adapter that wrote it"
            )

    def progress(self) -> dict[str, Any]:
        """What it knows beside its parameters, as plain JSON values."""
        return {"kind": self.kind} | (self.rule.state_dict() if self.rule is not None else {})

    def load_progress(self, state: dict[str, Any] | None) -> None:
        """Restores `progress`' output; ValueError for that of another kind of teacher, or none."""
        found = {} if state is None else dict(state)
        kind = found.pop("kind", None)
        if kind != self.kind:
            holds = "holds no teacher" if state is None else f"holds one of kind {kind!r}"
            raise ValueError(
                f"expected a checkpoint with a teacher of kind {self.kind!r}, but it {holds}; "
                "resume with the teacher_model_kind and teacher_refresh that it was saved with, or "
                "start a new run in another output_dir"
            )
        if self.rule is not None:
            self.rule.load_state_dict(found)


class EMATeacher(Teacher):
    r"""Exponential moving average of the student's trained parameters, after every optimizer step.

    .. math:: \phi \leftarrow (1 - \beta)\,\phi + \beta\,\theta

    with :math:`\beta` the `rate`, at every so many steps. At 0 it only saves and restores a teacher
    that something else updates. With LoRA the average is over the factors A and B, one by one;
    their product differs from the average of products in second order of the change within the
    averaging window.

    Choice: an average in bfloat16 or float16 would round small updates away, so it is kept in
    float32 and the teacher holds its rounding.
    """

    kind = "ema"

    def __init__(
        self, student: nn.Module, teacher: nn.Module | None, rate: float, every: int
    ) -> None:
        super().__init__(student, teacher)
        self._rate, self._every = rate, every
        self._wide: dict[str, Tensor] | None = None

    def _averages(self) -> dict[str, Tensor]:
        """By name, of parameters that cannot hold them; made at their first use, when a model that
        is to be sharded is."""
        if self._wide is None:
            self._wide = {
                name: teacher.detach().float()
                for name, (teacher, _) in self._pairs().items()
                if self._rate > 0 and teacher.dtype in (torch.bfloat16, torch.float16)
            }
        return self._wide

    @torch.no_grad()
    def update(self, figures: Mapping[str, float], step: int, steps: int) -> None:
        if self._rate == 0 or step % self._every != 0:
            return
        averages = self._averages()
        for name, (teacher, student) in self._pairs().items():
            average = local(averages.get(name, teacher))
            average.mul_(1.0 - self._rate).add_(local(student), alpha=self._rate)
        self._round()

    def _round(self) -> None:
        averages = self._averages()
        for name, (teacher, _) in self._pairs().items():
            if name in averages:
                local(teacher).copy_(local(averages[name]))

    def _kept(self) -> dict[str, Tensor]:
        return super()._kept() | self._averages()
