"""How the tiled loss behaves: what it keeps, skips, refuses, and in which precision it works."""

from __future__ import annotations

import gc
import weakref
from dataclasses import fields
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from poise.loss.divergence import Divergence
from poise.loss.tiled import DistillationOutput, tiled_distillation_loss

FULL = Divergence("full_logits", 0.5)
TOP = Divergence("topk_logits", 0.5, top_k=5, add_tail=True)
SAMPLED = Divergence("sampled_token", 1.0)
every_mode = pytest.mark.parametrize("divergence", [FULL, TOP, SAMPLED], ids=lambda d: d.mode)


def make(
    tokens: int = 12, hidden: int = 5, vocabulary: int = 23, dtype: torch.dtype = torch.float64
) -> dict[str, Any]:
    torch.manual_seed(0)
    return {
        "student_hidden": torch.randn(tokens, hidden, dtype=dtype, requires_grad=True),
        "teacher_hidden": torch.randn(tokens, hidden, dtype=dtype),
        "student_head": nn.Linear(hidden, vocabulary, dtype=dtype),
        "teacher_head": nn.Linear(hidden, vocabulary, dtype=dtype),
        "tokens": torch.randint(vocabulary, (tokens,)),
        "weights": torch.full((tokens,), 1.0 / max(tokens, 1), dtype=dtype),
        "divergence": FULL,
    }


def assert_equal(one: DistillationOutput, other: DistillationOutput) -> None:
    for field in fields(DistillationOutput):
        torch.testing.assert_close(getattr(one, field.name), getattr(other, field.name))


@every_mode
def test_tokens_of_weight_zero_are_as_if_they_were_not_there(divergence: Divergence) -> None:
    """Also where their rows hold nan and their tokens are padding."""
    inputs = make() | {"divergence": divergence, "tile_tokens": 2}
    skipped = torch.zeros(12, dtype=torch.bool)
    skipped[[0, 3, 4, 5, 11]] = True
    names = ("student_hidden", "teacher_hidden", "tokens", "weights")
    kept = inputs | {name: inputs[name].detach()[~skipped] for name in names}
    kept["student_hidden"].requires_grad_()
    inputs["weights"][skipped] = 0
    inputs["tokens"][skipped] = -100
    for name in ("student_hidden", "teacher_hidden"):
        inputs[name].data[skipped] = float("nan")

    output, expected = tiled_distillation_loss(**inputs), tiled_distillation_loss(**kept)
    for field in fields(output):
        value = getattr(output, field.name)
        if value.ndim:
            assert not value[skipped].any()
            value = value[~skipped]
        torch.testing.assert_close(value, getattr(expected, field.name))
    output.loss.backward()
    expected.loss.backward()
    gradient = inputs["student_hidden"].grad
    torch.testing.assert_close(gradient[~skipped], kept["student_hidden"].grad)
    assert (gradient[skipped] == 0).all()


@pytest.mark.parametrize("tokens", [0, 4])
def test_an_empty_mask_gives_zero_loss_and_zero_gradients(tokens: int) -> None:
    inputs = make(tokens)
    inputs["weights"].zero_()
    output = tiled_distillation_loss(**inputs)
    assert output.loss.item() == 0.0
    assert output.kl.shape == (tokens,)
    output.loss.backward()
    for tensor in (inputs["student_hidden"], *inputs["student_head"].parameters()):
        assert tensor.grad is not None and not tensor.grad.any()


@every_mode
def test_evaluation_gives_the_same_values_without_a_graph(divergence: Divergence) -> None:
    inputs = make() | {"divergence": divergence}
    expected = tiled_distillation_loss(**inputs)
    with CountOperations() as counted, torch.no_grad():
        output = tiled_distillation_loss(**inputs)
    assert not output.loss.requires_grad
    assert_equal(output, expected)
    assert not any("backward" in name for name in counted.names)
    inputs["student_hidden"].requires_grad_(False)
    inputs["student_head"].requires_grad_(False)
    assert not tiled_distillation_loss(**inputs).loss.requires_grad


def test_a_kept_graph_can_be_walked_twice_but_its_gradient_has_no_graph() -> None:
    inputs = make()
    hidden = inputs["student_hidden"]
    loss = tiled_distillation_loss(**inputs).loss
    (once,) = torch.autograd.grad(loss, hidden, retain_graph=True)
    (twice,) = torch.autograd.grad(2 * loss, hidden, retain_graph=True)
    torch.testing.assert_close(twice, 2 * once)
    (gradient,) = torch.autograd.grad(loss, hidden, create_graph=True)
    assert not gradient.requires_grad


class CountOperations(TorchDispatchMode):
    """Records every operation's name and the number of elements of its largest tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()
        self.largest = 0

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        result = function(*args, **kwargs or {})
        self.names.add(str(function))
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor):
                self.largest = max(self.largest, leaf.untyped_storage().nbytes() // leaf.itemsize)
        return result


@every_mode
def test_no_tensor_of_tokens_by_vocabulary_is_ever_made(divergence: Divergence) -> None:
    tokens, vocabulary, tile = 64, 97, 4
    inputs = make(tokens, 5, vocabulary) | {"divergence": divergence, "tile_tokens": tile}
    with CountOperations() as counted:
        tiled_distillation_loss(**inputs).loss.backward()
    # The count has seen the head's product and the way back through the softmax.
    assert {"aten.addmm.default", "aten._log_softmax_backward_data.default"} <= counted.names
    assert tile * vocabulary <= counted.largest < tokens * vocabulary
    # In fact nothing is larger than a tile (with a tail) or than the head.
    assert counted.largest <= max(tile * vocabulary, 6 * vocabulary)


def test_only_gradients_are_kept_for_the_backward() -> None:
    """One as large as the hidden states, one as each of the head's trainable parameters."""
    inputs = make(64, 5, 97) | {"tile_tokens": 4}
    kept: list[tuple[int, ...]] = []

    def keep(tensor: Tensor) -> Tensor:
        kept.append(tuple(tensor.shape))
        return tensor

    with saved_tensors_hooks(keep, lambda tensor: tensor):
        tiled_distillation_loss(**inputs).loss.backward()
    assert [shape for shape in kept if shape != ()] == [(64, 5), (97, 5), (97,)]


def test_no_tile_outlives_the_forward_even_without_a_garbage_collector() -> None:
    inputs = make(16, 5, 97) | {"tile_tokens": 4}
    head, tiles = inputs["student_head"], []

    class Watched(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = head

        def forward(self, hidden: Tensor) -> Tensor:
            # Like a softmax, tanh saves its own output: the graph must not hold on to itself.
            logits = self.head(hidden).tanh()
            tiles.append(weakref.ref(logits))
            return logits

    gc.disable()
    try:
        output = tiled_distillation_loss(**inputs | {"student_head": Watched()})
        assert len(tiles) == 4 and all(tile() is None for tile in tiles)
    finally:
        gc.enable()
    assert output.loss.requires_grad


def test_dropout_in_the_head_is_drawn_once_for_each_tile() -> None:
    """The gradient belongs to the very dropout that gave the value."""
    inputs = make() | {"tile_tokens": 4}
    head = nn.Sequential(nn.Dropout(0.5), inputs["student_head"])

    def run(hidden: Tensor) -> DistillationOutput:
        torch.manual_seed(1)
        return tiled_distillation_loss(**inputs | {"student_head": head, "student_hidden": hidden})

    hidden = inputs["student_hidden"]
    without = tiled_distillation_loss(**inputs)
    assert run(hidden).loss.item() != without.loss.item()
    assert torch.autograd.gradcheck(lambda h: run(h).loss, (hidden,))


def relative(found: Tensor, expected: Tensor) -> float:
    return float((found.double() - expected).norm() / expected.norm())


def in_precision(
    inputs: dict[str, Any], dtype: torch.dtype, autocast: bool = False
) -> tuple[DistillationOutput, Tensor, Tensor]:
    """Loss and gradients with states and heads of `dtype`, or of float32 under autocast."""
    held = torch.float32 if autocast else dtype
    student = inputs["student_hidden"].detach().to(held).requires_grad_()
    heads = {}
    for name in ("student_head", "teacher_head"):
        head = nn.Linear(inputs[name].in_features, inputs[name].out_features, dtype=held)
        head.load_state_dict(inputs[name].state_dict())
        heads[name] = head
    with torch.autocast("cpu", dtype=dtype, enabled=autocast):
        output = tiled_distillation_loss(
            **inputs
            | heads
            | {
                "student_hidden": student,
                "teacher_hidden": inputs["teacher_hidden"].to(held),
                "weights": inputs["weights"].to(
                    working := torch.promote_types(held, torch.float32)
                ),
            }
        )
    assert output.loss.dtype == working
    gradients = torch.autograd.grad(output.loss, [student, heads["student_head"].weight])
    assert all(gradient.dtype == held for gradient in gradients)
    return output, *gradients


@every_mode
@pytest.mark.parametrize("autocast", [False, True])
def test_bfloat16_stays_within_one_percent(divergence: Divergence, autocast: bool) -> None:
    """Of losses and gradients in float64, for logits of order one; bfloat16 resolves 0.4 %."""
    inputs = make(64, 16, 101) | {"divergence": divergence, "tile_tokens": 4}
    exact, *exact_gradients = in_precision(inputs, torch.float64)
    rough, *rough_gradients = in_precision(inputs, torch.bfloat16, autocast)
    assert relative(rough.per_token_loss, exact.per_token_loss) < 0.01
    for found, expected in zip(rough_gradients, exact_gradients, strict=True):
        assert relative(found, expected) < 0.01
    assert (rough.student_entropy - exact.student_entropy).abs().max() < 0.002


@pytest.mark.parametrize(("weight", "loss_scale"), [(2.0**-16, 2.0**16), (2.0**-1, 2.0**20)])
def test_float16_gradients_survive_small_weights_and_large_loss_scales(
    weight: float, loss_scale: float
) -> None:
    """A loss scaler multiplies afterwards; by then a float16 gradient must still be there."""
    inputs = make(16, 8, 31) | {"tile_tokens": 4}
    exact = in_precision(inputs, torch.float64)
    inputs["weights"] = inputs["weights"] * weight
    student = inputs["student_hidden"].detach().half().requires_grad_()
    output = tiled_distillation_loss(
        **inputs
        | {
            "student_hidden": student,
            "teacher_hidden": inputs["teacher_hidden"].half(),
            "student_head": inputs["student_head"].half(),
            "teacher_head": inputs["teacher_head"].half(),
            "weights": inputs["weights"].float(),
        }
    )
    (output.loss * loss_scale).backward()
    assert relative(student.grad, exact[1] * weight * loss_scale) < 0.01


def test_one_head_for_both_sides_learns_under_autocast() -> None:
    """Autocast caches casts of parameters; the teacher's must not hide the student's gradient."""
    inputs = make(dtype=torch.float32) | {"tile_tokens": 5}
    head = inputs["student_head"]
    expected = tiled_distillation_loss(**inputs | {"teacher_head": head}).loss
    (exact,) = torch.autograd.grad(expected, head.weight)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        with torch.no_grad():
            head(inputs["teacher_hidden"])
        tiled_distillation_loss(**inputs | {"teacher_head": head}).loss.backward()
    assert relative(head.weight.grad, exact.double()) < 0.05


@pytest.mark.parametrize("is_frozen", [True, False])
def test_autocast_casts_a_head_once_and_not_for_every_tile(is_frozen: bool) -> None:
    """And gives the bits that a cast for every tile gives."""
    inputs = make(dtype=torch.float32) | {"tile_tokens": 3}
    head = inputs["student_head"].requires_grad_(not is_frozen)
    inputs["teacher_head"] = head
    gradients, casts = [], []
    for kind in (head, lambda hidden: nn.functional.linear(hidden, head.weight, head.bias)):
        with torch.autocast("cpu", dtype=torch.bfloat16), CastsOf(head.weight) as counted:
            loss = tiled_distillation_loss(
                **inputs | {"student_head": kind, "teacher_head": kind},
                head_parameters=list(head.parameters()),
            ).loss
        gradients += torch.autograd.grad(loss, inputs["student_hidden"])
        casts.append(counted.number)
    assert torch.equal(*gradients)
    assert casts == ([1, 8] if is_frozen else casts[:1] * 2)


class CastsOf(TorchDispatchMode):
    """Counts how often a tensor is brought into another precision."""

    def __init__(self, tensor: Tensor) -> None:
        super().__init__()
        self.tensor, self.number = tensor, 0

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        if function is torch.ops.aten._to_copy.default:
            self.number += args[0].data_ptr() == self.tensor.data_ptr()
        return function(*args, **kwargs or {})


def test_many_small_contributions_add_up_in_a_bfloat16_head() -> None:
    """A sum kept in bfloat16 stops growing after 256 equal tiles."""
    inputs = make(1, 4, 7, dtype=torch.bfloat16)
    one = tiled_distillation_loss(**inputs).loss
    (single,) = torch.autograd.grad(one, inputs["student_head"].weight)
    count = 320
    names = ("student_hidden", "teacher_hidden", "tokens", "weights")
    repeated = {name: inputs[name].detach().repeat_interleave(count, 0) for name in names}
    many = tiled_distillation_loss(**inputs | repeated, tile_tokens=1).loss
    (total,) = torch.autograd.grad(many, inputs["student_head"].weight)
    torch.testing.assert_close(total.float(), single.float() * count, rtol=5e-3, atol=0.0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"clip": 2.0}, "expected its old_logps, found None"),
        ({"clip": float("nan"), "old_logps": torch.zeros(12)}, "clip must be positive"),
        ({"clip": 2.0, "old_logps": torch.zeros(3)}, "old_logps must have one value a token"),
        ({"weights": torch.ones(3)}, "weights must have one value a token"),
        ({"teacher_hidden": torch.zeros(5, 5)}, "teacher_hidden must be floating point"),
        ({"tokens": torch.full((12,), 23)}, r"tokens must lie in \[0, 23\)"),
        ({"teacher_head": nn.Linear(5, 9, dtype=torch.float64)}, "share one vocabulary"),
        ({"temperature": -1.0}, "temperature must be positive"),
        ({"tile_tokens": 0}, "tile_tokens must be at least 1"),
        ({"divergence": Divergence("topk_logits", top_k=24)}, "top_k=24 .* vocabulary of 23"),
    ],
)
def test_bad_input_has_one_clear_error(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        tiled_distillation_loss(**make() | change)


def test_a_function_that_hides_its_parameters_is_refused() -> None:
    inputs = make()
    head = inputs["student_head"]
    with pytest.raises(ValueError, match="Name all of them in head_parameters"):
        tiled_distillation_loss(**inputs | {"student_head": lambda hidden: head(hidden)})
    head.requires_grad_(False)
    tiled_distillation_loss(**inputs | {"student_head": lambda hidden: head(hidden)})
