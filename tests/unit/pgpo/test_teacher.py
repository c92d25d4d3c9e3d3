"""The EMA teacher starts from the student, and is the average that it says."""

from __future__ import annotations

import copy
from functools import partial
from pathlib import Path
from types import MethodType
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from poise.pgpo.teacher import EMATeacher, add_teacher_adapter, copy_as_teacher, kept_trainability

from .teachers import LORA, RATE, full_model, logits, lora_model, move, step_end, trained

# A full teacher


def test_a_full_teacher_starts_as_a_frozen_copy_of_the_student() -> None:
    student = full_model().train()
    teacher = copy_as_teacher(student)
    assert not teacher.training and student.training
    assert not any(p.requires_grad for p in teacher.parameters())
    assert all(p.requires_grad for p in student.parameters())
    assert torch.equal(logits(teacher), logits(student.eval()))
    move(student)
    assert not torch.equal(logits(teacher), logits(student))


def test_a_full_teacher_is_the_average_of_the_students_it_saw() -> None:
    student = full_model(torch.float64)
    teacher = copy_as_teacher(student)
    callback = EMATeacher(student, teacher, RATE, every=1)
    start, seen = trained(student), []
    for step in range(1, 6):
        move(student)
        seen.append(trained(student))
        step_end(callback, step)
    for name, param in teacher.named_parameters():
        expected = (1 - RATE) ** 5 * start[name]
        for i, value in enumerate(seen):
            expected = expected + RATE * (1 - RATE) ** (4 - i) * value[name]
        torch.testing.assert_close(param.detach(), expected, rtol=1e-13, atol=1e-14)


def test_between_two_synchronisations_the_teacher_stands_still() -> None:
    student = full_model()
    teacher = copy_as_teacher(student)
    callback = EMATeacher(student, teacher, RATE, every=3)
    before = logits(teacher)
    changed = []
    for step in range(1, 7):
        move(student)
        step_end(callback, step)
        changed.append(not torch.equal(logits(teacher), before))
        before = logits(teacher)
    assert changed == [False, False, True, False, False, True]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_low_precision_average_keeps_updates_that_it_cannot_show_yet(dtype: torch.dtype) -> None:
    student = nn.Linear(1, 1, bias=False).to(dtype)
    nn.init.ones_(student.weight)
    teacher = copy_as_teacher(student)
    callback = EMATeacher(student, teacher, RATE, every=1)
    ulp = torch.finfo(dtype).eps
    nn.init.constant_(student.weight, 1 + 4 * ulp)  # each update is a fifth of a rounding
    for step in range(1, 101):
        step_end(callback, step)
    assert teacher.weight.dtype == dtype
    expected = 1 + 4 * ulp * (1 - (1 - RATE) ** 100)
    (average,) = callback.state_dict().values()
    assert average.dtype == torch.float32
    assert average.item() == pytest.approx(expected, rel=1e-5)
    assert teacher.weight.item() == 1 + 4 * ulp


# A teacher inside a LoRA model


@pytest.mark.parametrize("settings", LORA.values(), ids=LORA.keys())
def test_a_lora_teacher_starts_from_the_student(settings: dict[str, Any]) -> None:
    model = lora_model(**settings)
    student = logits(model)
    add_teacher_adapter(model, from_student=True)
    assert torch.equal(logits(model), student)
    assert torch.equal(logits(model, "teacher"), student)
    with model.disable_adapter():
        assert not torch.allclose(logits(model), student)


def test_on_request_a_lora_teacher_starts_from_zero_factors_as_the_hosts() -> None:
    model = lora_model()
    add_teacher_adapter(model, from_student=False)
    with model.disable_adapter():
        base = logits(model)
    assert torch.equal(logits(model, "teacher"), base)
    factors = [p for n, p in model.named_parameters() if ".teacher." in n]
    assert factors and not any(p.any() for p in factors)


def test_adding_the_teacher_changes_neither_training_nor_random_numbers() -> None:
    model = lora_model()
    names = list(trained(model))
    state = torch.get_rng_state()
    add_teacher_adapter(model, from_student=True)
    assert torch.equal(torch.get_rng_state(), state)
    assert model.active_adapter == "default"
    assert list(trained(model)) == names
    logits(model, "teacher")  # the host switches adapters for the teacher's forward
    assert list(trained(model)) == names


@pytest.mark.parametrize("settings", LORA.values(), ids=LORA.keys())
def test_a_lora_teacher_averages_factor_by_factor(settings: dict[str, Any]) -> None:
    model = lora_model(**settings).double()
    add_teacher_adapter(model, from_student=True)
    callback = EMATeacher(model, None, RATE, every=1)
    start, seen = trained(model), []
    for step in range(1, 4):
        move(model)
        seen.append(trained(model))
        step_end(callback, step)
    teachers = {n: p for n, p in model.named_parameters() if n not in start and "teacher" in n}
    assert len(teachers) == len(start)
    for name, found in teachers.items():
        own = name.replace("teacher", "default")
        expected = (1 - RATE) ** 3 * start[own]
        for i, value in enumerate(seen):
            expected = expected + RATE * (1 - RATE) ** (2 - i) * value[own]
        torch.testing.assert_close(found.detach(), expected, rtol=1e-13, atol=1e-14)


def test_a_lora_teacher_is_not_saved_with_the_student(tmp_path: Path) -> None:
    model = lora_model()
    model.save_pretrained(tmp_path / "before")
    add_teacher_adapter(model, from_student=True)
    model.save_pretrained(tmp_path / "after")
    saved = [
        load_file(tmp_path / when / "adapter_model.safetensors") for when in ("before", "after")
    ]
    assert saved[0].keys() == saved[1].keys()
    assert not list((tmp_path / "after").glob("*/"))


def test_a_copy_of_a_model_with_a_teacher_saves_its_own_weights(tmp_path: Path) -> None:
    model = lora_model()
    add_teacher_adapter(model, from_student=True)
    copied = copy.deepcopy(model)
    move(copied)
    copied.save_pretrained(tmp_path)
    saved = load_file(tmp_path / "adapter_model.safetensors")
    for name, param in trained(copied).items():
        assert torch.equal(saved[name.replace(".default", "")], param), name


def test_adding_and_asking_the_teacher_trains_nothing_that_the_user_froze() -> None:
    model = lora_model()
    for name, param in model.named_parameters():
        if "lora_A" in name:
            param.requires_grad_(False)
    names = list(trained(model))
    add_teacher_adapter(model, from_student=True)
    assert list(trained(model)) == names
    with kept_trainability(model):
        logits(model, "teacher")
    assert list(trained(model)) == names


def test_a_second_teacher_takes_the_place_of_the_first() -> None:
    model = lora_model()
    add_teacher_adapter(model, from_student=False)
    add_teacher_adapter(model, from_student=True)
    assert torch.equal(logits(model, "teacher"), logits(model))


def test_an_adapter_of_the_users_with_the_teachers_name_is_refused() -> None:
    model = lora_model()
    model.add_adapter("teacher", model.peft_config["default"])
    with pytest.raises(ValueError, match=r"an adapter called 'teacher'.*another name"):
        add_teacher_adapter(model, from_student=True)


def test_a_copy_runs_its_own_weights_where_the_students_forward_was_wrapped() -> None:
    student = full_model()
    wrapped = student._original_forward = student.forward  # as Accelerate's autocast
    student.forward = lambda *args, **kwargs: wrapped(*args, **kwargs)
    teacher = copy_as_teacher(student)
    before = logits(teacher)
    move(student)
    assert torch.equal(logits(teacher), before)


@pytest.mark.parametrize("is_prepared", [False, True])
def test_a_copy_keeps_a_users_forward_that_is_a_method(is_prepared: bool) -> None:
    def doubled(self: Any, *args: Any, **kwargs: Any) -> Any:
        output = type(self).forward(self, *args, **kwargs)
        output.logits = 2 * output.logits
        return output

    student = full_model().eval()
    plain = logits(student)
    own = student.forward = MethodType(doubled, student)
    if is_prepared:
        student._original_forward = own
        student.forward = lambda *args, **kwargs: own(*args, **kwargs)
    teacher = copy_as_teacher(student)
    move(student)
    assert torch.equal(logits(teacher), 2 * plain)


def test_a_users_forward_that_a_copy_would_share_is_refused() -> None:
    student = full_model()
    own = student.forward
    student.forward = lambda *args, **kwargs: own(*args, **kwargs)
    with pytest.raises(ValueError, match=r"plain function.*types\.MethodType"):
        copy_as_teacher(student)


def test_a_users_way_to_save_is_kept(tmp_path: Path) -> None:
    model, calls = lora_model(), []
    model.save_pretrained = partial(lambda *args, **kwargs: calls.append(kwargs))
    for _ in range(2):  # two trainers, one after the other
        add_teacher_adapter(model, from_student=True)
        model.save_pretrained(tmp_path)
    assert calls == [{"selected_adapters": ["default"]}] * 2
