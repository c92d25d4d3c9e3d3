"""The EMA teacher starts from the student, is the average that it says, and comes back."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load, save
from torch import Tensor, nn
from transformers import LlamaForCausalLM
from trl.trainer.utils import use_adapter

from poise.training.teacher import EMATeacher, add_teacher_adapter, copy_as_teacher
from tests.tiny import tiny_config

RATE = 0.05
LORA: dict[str, dict[str, Any]] = {
    "LoRA": {"target_modules": ["q_proj", "down_proj"]},
    "DoRA": {"target_modules": ["q_proj"], "use_dora": True},
    "LoRA on embeddings": {"target_modules": ["embed_tokens", "v_proj"]},
}


def _full(dtype: torch.dtype = torch.float32) -> nn.Module:
    torch.manual_seed(0)
    return LlamaForCausalLM(tiny_config()).to(dtype)


def _lora(**settings: Any) -> Any:
    model = get_peft_model(_full(), LoraConfig(r=4, **(LORA["LoRA"] | settings)))
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():  # as if trained: LoRA starts with B = 0, where student and base agree
        for name, param in model.named_parameters():
            if "lora_" in name:
                param.copy_(torch.randn(param.shape, generator=generator))
    return model


def _move(model: nn.Module, size: float = 0.1) -> None:
    """A step of training: every trained parameter changes."""
    with torch.no_grad():
        for param in model.parameters():
            if param.requires_grad:
                param.add_(torch.randn_like(param) * size)


def _step_end(teacher: EMATeacher, step: int) -> None:
    args: Any = SimpleNamespace()
    teacher.on_step_end(args, SimpleNamespace(global_step=step), args, model=None)


def _logits(model: nn.Module, adapter: str | None = None) -> Tensor:
    ids = torch.arange(2, 12).view(2, 5)
    with torch.no_grad():
        if adapter is None:
            return model(input_ids=ids).logits
        with use_adapter(model, adapter_name=adapter):
            return model(input_ids=ids).logits


def _trained(model: nn.Module) -> dict[str, Tensor]:
    return {n: p.detach().clone() for n, p in model.named_parameters() if p.requires_grad}


# A full teacher


def test_a_full_teacher_starts_as_a_frozen_copy_of_the_student() -> None:
    student = _full().train()
    teacher = copy_as_teacher(student)
    assert not teacher.training and student.training
    assert not any(p.requires_grad for p in teacher.parameters())
    assert all(p.requires_grad for p in student.parameters())
    assert torch.equal(_logits(teacher), _logits(student.eval()))
    _move(student)
    assert not torch.equal(_logits(teacher), _logits(student))


def test_a_full_teacher_is_the_average_of_the_students_it_saw() -> None:
    student = _full(torch.float64)
    teacher = copy_as_teacher(student)
    callback = EMATeacher(student, teacher, RATE, every=1)
    start, seen = _trained(student), []
    for step in range(1, 6):
        _move(student)
        seen.append(_trained(student))
        _step_end(callback, step)
    for name, param in teacher.named_parameters():
        expected = (1 - RATE) ** 5 * start[name]
        for i, value in enumerate(seen):
            expected = expected + RATE * (1 - RATE) ** (4 - i) * value[name]
        torch.testing.assert_close(param.detach(), expected, rtol=1e-13, atol=1e-14)


def test_between_two_synchronisations_the_teacher_stands_still() -> None:
    student = _full()
    teacher = copy_as_teacher(student)
    callback = EMATeacher(student, teacher, RATE, every=3)
    before = _logits(teacher)
    changed = []
    for step in range(1, 7):
        _move(student)
        _step_end(callback, step)
        changed.append(not torch.equal(_logits(teacher), before))
        before = _logits(teacher)
    assert changed == [False, False, True, False, False, True]


def test_the_average_has_no_gradient_and_leaves_the_student_alone() -> None:
    student = _full()
    teacher = copy_as_teacher(student)
    callback = EMATeacher(student, teacher, RATE, every=1)
    before = _trained(student)
    _step_end(callback, 1)
    assert all(torch.equal(before[n], p) for n, p in student.named_parameters())
    assert not any(p.requires_grad or p.grad_fn for p in teacher.parameters())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_low_precision_average_keeps_updates_that_it_cannot_show_yet(dtype: torch.dtype) -> None:
    student = nn.Linear(1, 1, bias=False).to(dtype)
    nn.init.ones_(student.weight)
    teacher = copy_as_teacher(student)
    callback = EMATeacher(student, teacher, RATE, every=1)
    ulp = torch.finfo(dtype).eps
    nn.init.constant_(student.weight, 1 + 4 * ulp)  # each update is a fifth of a rounding
    for step in range(1, 101):
        _step_end(callback, step)
    assert teacher.weight.dtype == dtype
    expected = 1 + 4 * ulp * (1 - (1 - RATE) ** 100)
    (average,) = callback.state_dict().values()
    assert average.dtype == torch.float32
    assert average.item() == pytest.approx(expected, rel=1e-5)
    assert teacher.weight.item() == 1 + 4 * ulp


# A teacher inside a LoRA model


@pytest.mark.parametrize("settings", LORA.values(), ids=LORA.keys())
def test_a_lora_teacher_starts_from_the_student(settings: dict[str, Any]) -> None:
    model = _lora(**settings)
    student = _logits(model)
    add_teacher_adapter(model, from_student=True)
    assert torch.equal(_logits(model), student)
    assert torch.equal(_logits(model, "teacher"), student)
    with model.disable_adapter():
        assert not torch.allclose(_logits(model), student)


def test_on_request_a_lora_teacher_starts_from_zero_factors_as_the_hosts() -> None:
    model = _lora()
    add_teacher_adapter(model, from_student=False)
    with model.disable_adapter():
        base = _logits(model)
    assert torch.equal(_logits(model, "teacher"), base)
    factors = [p for n, p in model.named_parameters() if ".teacher." in n]
    assert factors and not any(p.any() for p in factors)


def test_adding_the_teacher_changes_neither_training_nor_random_numbers() -> None:
    model = _lora()
    trained = [n for n, p in model.named_parameters() if p.requires_grad]
    state = torch.get_rng_state()
    add_teacher_adapter(model, from_student=True)
    assert torch.equal(torch.get_rng_state(), state)
    assert model.active_adapter == "default"
    assert [n for n, p in model.named_parameters() if p.requires_grad] == trained
    _logits(model, "teacher")  # the host switches adapters for the teacher's forward
    assert [n for n, p in model.named_parameters() if p.requires_grad] == trained


@pytest.mark.parametrize("settings", LORA.values(), ids=LORA.keys())
def test_a_lora_teacher_averages_factor_by_factor(settings: dict[str, Any]) -> None:
    model = _lora(**settings).double()
    add_teacher_adapter(model, from_student=True)
    callback = EMATeacher(model, None, RATE, every=1)
    start, seen = _trained(model), []
    for step in range(1, 4):
        _move(model)
        seen.append(_trained(model))
        _step_end(callback, step)
    teachers = {n: p for n, p in model.named_parameters() if n not in start and "teacher" in n}
    assert len(teachers) == len(start)
    for name, found in teachers.items():
        own = name.replace("teacher", "default")
        expected = (1 - RATE) ** 3 * start[own]
        for i, value in enumerate(seen):
            expected = expected + RATE * (1 - RATE) ** (2 - i) * value[own]
        torch.testing.assert_close(found.detach(), expected, rtol=1e-13, atol=1e-14)


# Saving


def _pair(kind: str) -> tuple[nn.Module, EMATeacher, nn.Module]:
    """Student, callback, and the model that holds the teacher."""
    if kind == "LoRA":
        model = _lora()
        add_teacher_adapter(model, from_student=True)
        return model, EMATeacher(model, None, RATE, every=1), model
    student = _full(torch.bfloat16 if kind == "bfloat16" else torch.float32)
    teacher = copy_as_teacher(student)
    return student, EMATeacher(student, teacher, RATE, every=1), teacher


@pytest.mark.parametrize("kind", ["full", "bfloat16", "LoRA"])
def test_a_saved_teacher_goes_on_bit_for_bit(kind: str) -> None:
    student, callback, _ = _pair(kind)
    torch.manual_seed(2)
    for step in range(1, 4):
        _move(student)
        _step_end(callback, step)
    saved = load(save(callback.state_dict()))
    resumed_student, resumed, _ = _pair(kind)
    resumed_student.load_state_dict(student.state_dict())
    resumed.load_state_dict(saved)
    for step in range(4, 6):
        for model, its_callback in ((student, callback), (resumed_student, resumed)):
            torch.manual_seed(step)
            _move(model)
            _step_end(its_callback, step)
    expected, found = callback.state_dict(), resumed.state_dict()
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[name], found[name]) for name in expected)


@pytest.mark.parametrize("kind", ["full", "bfloat16", "LoRA"])
def test_a_restored_teacher_predicts_what_the_saved_one_did(kind: str) -> None:
    adapter = "teacher" if kind == "LoRA" else None
    student, callback, teacher = _pair(kind)
    _move(student, 1.0)
    _step_end(callback, 1)
    _, resumed, resumed_teacher = _pair(kind)
    assert not torch.equal(_logits(resumed_teacher, adapter), _logits(teacher, adapter))
    resumed.load_state_dict(callback.state_dict())
    assert torch.equal(_logits(resumed_teacher, adapter), _logits(teacher, adapter))


def test_a_saved_state_does_not_follow_later_updates() -> None:
    student, callback, _ = _pair("full")
    state = callback.state_dict()
    before = {name: tensor.clone() for name, tensor in state.items()}
    _move(student)
    _step_end(callback, 1)
    assert all(torch.equal(state[name], before[name]) for name in state)


def test_a_state_of_another_model_is_refused_by_name() -> None:
    _, callback, _ = _pair("full")
    state = callback.state_dict()
    state["model.layers.7.weight"] = state.pop("model.norm.weight")
    message = r"does not fit this model: 2 parameters differ, e.g. 'model.layers.7.weight'; resume"
    with pytest.raises(ValueError, match=message):
        callback.load_state_dict(state)


def test_a_state_of_another_rank_is_refused_by_shape() -> None:
    _, callback, _ = _pair("LoRA")
    model = get_peft_model(_full(), LoraConfig(r=2, **LORA["LoRA"]))
    add_teacher_adapter(model, from_student=True)
    other = EMATeacher(model, None, RATE, every=1)
    with pytest.raises(ValueError, match=r"has shape \(2, 32\), expected \(4, 32\); resume with"):
        callback.load_state_dict(other.state_dict())
