"""A saved teacher goes on where it was; one of another model is refused."""

from __future__ import annotations

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load, save
from torch import nn

from poise.pgpo.teacher import EMATeacher, add_teacher_adapter, copy_as_teacher

from .teachers import LORA, RATE, full_model, logits, lora_model, move, step_end


def _pair(kind: str) -> tuple[nn.Module, EMATeacher, nn.Module]:
    """Student, callback, and the model that holds the teacher."""
    if kind == "LoRA":
        model = lora_model()
        add_teacher_adapter(model, from_student=True)
        return model, EMATeacher(model, None, RATE, every=1), model
    student = full_model(torch.bfloat16 if kind == "bfloat16" else torch.float32)
    teacher = copy_as_teacher(student)
    return student, EMATeacher(student, teacher, RATE, every=1), teacher


@pytest.mark.parametrize("kind", ["full", "bfloat16", "LoRA"])
def test_a_saved_teacher_goes_on_bit_for_bit(kind: str) -> None:
    student, callback, _ = _pair(kind)
    torch.manual_seed(2)
    for step in range(1, 4):
        move(student)
        step_end(callback, step)
    saved = load(save(callback.state_dict()))
    resumed_student, resumed, _ = _pair(kind)
    resumed_student.load_state_dict(student.state_dict())
    resumed.load_state_dict(saved)
    for step in range(4, 6):
        for model, its_callback in ((student, callback), (resumed_student, resumed)):
            torch.manual_seed(step)
            move(model)
            step_end(its_callback, step)
    expected, found = callback.state_dict(), resumed.state_dict()
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[name], found[name]) for name in expected)


@pytest.mark.parametrize("kind", ["full", "bfloat16", "LoRA"])
def test_a_restored_teacher_predicts_what_the_saved_one_did(kind: str) -> None:
    adapter = "teacher" if kind == "LoRA" else None
    student, callback, teacher = _pair(kind)
    move(student, 1.0)
    step_end(callback, 1)
    _, resumed, resumed_teacher = _pair(kind)
    assert not torch.equal(logits(resumed_teacher, adapter), logits(teacher, adapter))
    resumed.load_state_dict(callback.state_dict())
    assert torch.equal(logits(resumed_teacher, adapter), logits(teacher, adapter))


def test_a_saved_state_does_not_follow_later_updates() -> None:
    student, callback, _ = _pair("full")
    state = callback.state_dict()
    before = {name: tensor.clone() for name, tensor in state.items()}
    move(student)
    step_end(callback, 1)
    assert all(torch.equal(state[name], before[name]) for name in state)


def test_a_teacher_that_something_else_updates_is_saved_as_it_is() -> None:
    student = full_model(torch.bfloat16)
    teacher = copy_as_teacher(student)
    callback = EMATeacher(student, teacher, 0.0, every=1)
    with torch.no_grad():
        for param in teacher.parameters():  # as the host's own callback does
            param.add_(1.0)
    move(student)
    step_end(callback, 1)
    state = callback.state_dict()
    assert all(torch.equal(state[name], p) for name, p in teacher.named_parameters())


def test_a_state_of_another_model_is_refused_by_name() -> None:
    _, callback, _ = _pair("full")
    state = callback.state_dict()
    state["model.layers.7.weight"] = state.pop("model.norm.weight")
    message = r"does not fit this model: 2 parameters differ, e.g. 'model.layers.7.weight'"
    with pytest.raises(ValueError, match=message):
        callback.load_state_dict(state)


def test_a_state_of_another_rank_is_refused_by_shape() -> None:
    _, callback, _ = _pair("LoRA")
    model = get_peft_model(full_model(), LoraConfig(r=2, **LORA["LoRA"]))
    add_teacher_adapter(model, from_student=True)
    other = EMATeacher(model, None, RATE, every=1)
    with pytest.raises(ValueError, match=r"expected .*4, 48.*, found .*2, 48.*; resume with"):
        callback.load_state_dict(other.state_dict())
