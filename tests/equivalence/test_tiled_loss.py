"""The tiled distillation loss equals the plain one, and TRL's, in value and gradient (float64)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from functools import partial
from typing import Any

import pytest
import torch
from peft import LoraConfig, inject_adapter_in_model
from torch import Tensor, nn
from trl.experimental.sdpo import loss_utils as trl_loss
from trl.kernels.chunked_divergence import ChunkedDivergenceFunction

from poise.loss.divergence import Divergence
from poise.loss.tiled import DistillationOutput, tiled_distillation_loss
from tests.equivalence.plain_loss import plain_loss

ALPHAS = (0.0, 0.3, 0.5, 1.0)
EPS_32 = torch.finfo(torch.float32).eps
DIVERGENCES = [
    *(Divergence("full_logits", alpha) for alpha in ALPHAS),
    *(
        Divergence("topk_logits", alpha, top_k=3, add_tail=tail)
        for alpha in ALPHAS
        for tail in (False, True)
    ),
    Divergence("sampled_token", 1.0),
]
SHAPES = [  # tokens, hidden, vocabulary, tile
    (1, 3, 5, None),
    (1, 3, 5, 4),
    (7, 4, 13, 1),
    (7, 4, 13, 3),
    (8, 5, 17, 4),
    (23, 2, 11, None),
    (5, 6, 29, 100),
]


def name_of(divergence: Divergence) -> str:
    tail = "-tail" if divergence.add_tail else ""
    return f"{divergence.mode}-{divergence.alpha}{tail}"


every_divergence = pytest.mark.parametrize("divergence", DIVERGENCES, ids=name_of)


class Problem:
    """Random inputs in float64; some tokens have weight zero."""

    def __init__(
        self, tokens: int, hidden: int, vocabulary: int, seed: int = 0, device: Any = "cpu"
    ) -> None:
        generator = torch.Generator().manual_seed(seed)

        def normal(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=generator, dtype=torch.float64).to(device)

        self.student = normal(tokens, hidden).requires_grad_()
        self.teacher = normal(tokens, hidden + 1)
        self.tokens = torch.randint(vocabulary, (tokens,), generator=generator).to(device)
        self.weights = torch.rand(tokens, generator=generator, dtype=torch.float64).to(device)
        self.weights[2::3] = 0
        self.old_logps = -normal(tokens).exp()
        self.head = nn.Linear(hidden, vocabulary, dtype=torch.float64)
        self.teacher_head = nn.Linear(hidden + 1, vocabulary, dtype=torch.float64)
        for parameter in (*self.head.parameters(), *self.teacher_head.parameters()):
            parameter.data = normal(*parameter.shape)

    def tiled(self, head: Any = None, **settings: Any) -> DistillationOutput:
        return tiled_distillation_loss(
            self.student,
            self.teacher,
            head or self.head,
            self.teacher_head,
            self.tokens,
            self.weights,
            **settings,
        )

    def plain(
        self, divergence: Divergence, head: Any = None, temperature: float = 1.0, **clip: Any
    ) -> dict[str, Tensor]:
        return plain_loss(
            (head or self.head)(self.student) / temperature,
            self.teacher_head(self.teacher) / temperature,
            self.tokens,
            self.weights,
            divergence,
            **clip,
        )


Make = Callable[..., Problem]


@pytest.fixture
def make_problem(device: torch.device) -> Make:
    return partial(Problem, device=device)


def assert_equal_values(output: DistillationOutput, expected: dict[str, Tensor]) -> None:
    for field in fields(output):
        value = getattr(output, field.name)
        assert value.dtype == torch.float64
        torch.testing.assert_close(
            value,
            expected[field.name],
            rtol=1e-10,
            atol=1e-10,
            msg=lambda m, f=field.name: f"{f}: {m}",
        )


def assert_equal_gradients(tiled: Tensor, plain: Tensor, inputs: list[Tensor]) -> None:
    """Of a loss that is scaled afterwards, as gradient accumulation does."""
    ours = torch.autograd.grad(tiled * 0.37, inputs, allow_unused=True)
    theirs = torch.autograd.grad(plain * 0.37, inputs, allow_unused=True)
    assert any(gradient is not None and gradient.any() for gradient in theirs)
    torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)


@every_divergence
@pytest.mark.parametrize(("clip", "temperature"), [(None, 1.0), (1.5, 0.7)])
def test_values_and_gradients_equal_the_plain_loss(
    make_problem: Make, divergence: Divergence, clip: float | None, temperature: float
) -> None:
    for tokens, hidden, vocabulary, tile in SHAPES:
        problem = make_problem(tokens, hidden, vocabulary)
        correction = {"old_logps": problem.old_logps, "clip": clip}
        output = problem.tiled(
            divergence=divergence, temperature=temperature, tile_tokens=tile, **correction
        )
        expected = problem.plain(divergence, temperature=temperature, **correction)
        assert_equal_values(output, expected)
        inputs = [problem.student, *problem.head.parameters()]
        assert_equal_gradients(output.loss, expected["loss"], inputs)


class SoftCapped(nn.Module):
    """A head with Gemma's soft-capping of the logits."""

    def __init__(self, head: nn.Module, cap: float = 3.0) -> None:
        super().__init__()
        self.head, self.cap = head, cap

    def forward(self, hidden: Tensor) -> Tensor:
        return self.cap * torch.tanh(self.head(hidden) / self.cap)


def with_lora(head: nn.Linear) -> nn.Module:
    """PEFT's LoRA on the head; B is filled, so that A has a gradient too."""
    model = nn.ModuleDict({"lm_head": head})
    config = LoraConfig(r=2, target_modules=["lm_head"], lora_alpha=3)
    adapted = inject_adapter_in_model(config, model)["lm_head"].double().to(head.weight.device)
    nn.init.normal_(adapted.lora_B["default"].weight)
    return adapted


@pytest.mark.parametrize(
    "divergence",
    [
        Divergence("full_logits", 0.5),
        Divergence("topk_logits", 0.5, top_k=4, add_tail=True),
        Divergence("sampled_token", 1.0),
    ],
    ids=name_of,
)
@pytest.mark.parametrize("kind", ["lora", "soft-capped", "soft-capped lora", "without bias"])
def test_heads_with_adapters_and_soft_capping_equal_the_plain_loss(
    make_problem: Make, kind: str, divergence: Divergence
) -> None:
    problem = make_problem(11, 6, 19)
    head: nn.Module = problem.head
    if kind == "without bias":
        problem.head.bias = None
    if "lora" in kind:
        head = with_lora(problem.head)
    if "soft-capped" in kind:
        head = SoftCapped(head)
    trainable = [p for p in head.parameters() if p.requires_grad]
    assert len(trainable) == {"lora": 2, "soft-capped lora": 2, "without bias": 1}.get(kind, 2)
    output = problem.tiled(head, divergence=divergence, tile_tokens=2)
    expected = problem.plain(divergence, head)
    assert_equal_values(output, expected)
    assert_equal_gradients(output.loss, expected["loss"], [problem.student, *trainable])


def test_a_plain_function_is_a_head_when_its_parameters_are_named(make_problem: Make) -> None:
    problem = make_problem(9, 4, 7)
    weight = problem.head.weight

    def head(hidden: Tensor) -> Tensor:
        return hidden @ (weight * 2).T

    divergence = Divergence("full_logits")
    output = problem.tiled(head, divergence=divergence, tile_tokens=2, head_parameters=[weight])
    expected = problem.plain(divergence, head)
    assert_equal_gradients(output.loss, expected["loss"], [problem.student, weight])


@pytest.mark.parametrize("trained", ["hidden", "head"])
def test_either_side_may_be_frozen(make_problem: Make, trained: str) -> None:
    problem = make_problem(9, 4, 7)
    divergence = Divergence("full_logits", 1.0)
    if trained == "hidden":
        problem.head.requires_grad_(False)
        inputs = [problem.student]
    else:
        problem.student = problem.student.detach()
        inputs = list(problem.head.parameters())
    output = problem.tiled(divergence=divergence, tile_tokens=2)
    assert_equal_gradients(output.loss, problem.plain(divergence)["loss"], inputs)


def test_gradients_reach_a_body_that_shares_its_embedding_with_the_head(make_problem: Make) -> None:
    problem = make_problem(9, 4, 7)
    divergence = Divergence("full_logits")
    weight = problem.head.weight
    problem.student = weight[problem.tokens].tanh()
    output = problem.tiled(divergence=divergence, tile_tokens=2)
    ours = torch.autograd.grad(output.loss, weight, retain_graph=True)
    theirs = torch.autograd.grad(problem.plain(divergence)["loss"], weight)
    torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)


def trl_per_token(
    divergence: Divergence, student_logits: Tensor, teacher_logits: Tensor, tokens: Tensor
) -> Tensor:
    alpha = divergence.alpha
    if divergence.mode == "full_logits":
        return trl_loss.compute_full_logit_self_distillation_loss(
            student_logits, teacher_logits, distillation_alpha=alpha
        )
    if divergence.mode == "topk_logits":
        return trl_loss.compute_topk_self_distillation_loss(
            student_logits,
            teacher_logits,
            distillation_topk=divergence.top_k,
            distillation_alpha=alpha,
            distillation_add_tail=divergence.add_tail,
        )
    return trl_loss.compute_sampled_token_self_distillation_loss(
        student_logits, teacher_logits, tokens, distillation_alpha=alpha
    )


@every_divergence
@pytest.mark.parametrize("clip", [None, 1.5])
def test_values_and_gradients_equal_trl(
    make_problem: Make, divergence: Divergence, clip: float | None
) -> None:
    problem = make_problem(12, 5, 31)
    output = problem.tiled(
        divergence=divergence, old_logps=problem.old_logps, clip=clip, tile_tokens=5
    )
    logits = problem.head(problem.student)[None]
    teacher_logits = problem.teacher_head(problem.teacher).detach()[None]
    per_token = trl_per_token(divergence, logits, teacher_logits, problem.tokens[None])
    if clip is not None:
        logps = trl_loss.selective_log_softmax(logits, problem.tokens[None])
        per_token = trl_loss.apply_importance_sampling_clipping(
            per_token, logps, problem.old_logps[None], clip
        )
    kept = problem.weights != 0
    torch.testing.assert_close(
        output.per_token_loss[kept], per_token[0][kept], rtol=1e-10, atol=1e-10
    )
    expected = (per_token[0] * problem.weights).sum()
    torch.testing.assert_close(output.loss, expected, rtol=1e-10, atol=1e-10)
    assert_equal_gradients(output.loss, expected, [problem.student, *problem.head.parameters()])


@pytest.mark.parametrize("alpha", ALPHAS)
@pytest.mark.parametrize("softcap", [None, 3.0])
def test_values_and_gradients_equal_trls_kernel(
    make_problem: Make, alpha: float, softcap: float | None
) -> None:
    """Which works in float32 whatever it gets; sums of 31 terms, on logits of order ten."""
    problem = make_problem(12, 5, 31)
    student = problem.student.detach().float().requires_grad_()
    teacher = problem.teacher.float()
    heads = problem.head.float(), problem.teacher_head.float()
    cap: Any = (lambda head: head) if softcap is None else partial(SoftCapped, cap=softcap)
    output = tiled_distillation_loss(
        student,
        teacher,
        cap(heads[0]),
        cap(heads[1]),
        problem.tokens,
        problem.weights.float(),
        divergence=Divergence("full_logits", alpha),
        temperature=0.7,
        tile_tokens=5,
    )
    per_token, entropies = ChunkedDivergenceFunction.apply(
        *(student, heads[0].weight, heads[0].bias),
        *(teacher, heads[1].weight, heads[1].bias),
        *(alpha, 0.7, 1.0, softcap, 1.0, softcap),
    )
    kept = problem.weights != 0
    bounds = {"rtol": 1e3 * EPS_32, "atol": 1e3 * EPS_32}
    torch.testing.assert_close(output.per_token_loss[kept], per_token[kept], **bounds)
    torch.testing.assert_close(output.student_entropy[kept], entropies[kept], **bounds)
    inputs = [student, *heads[0].parameters()]
    ours = torch.autograd.grad(output.loss, inputs)
    theirs = torch.autograd.grad((per_token * problem.weights.float()).sum(), inputs)
    torch.testing.assert_close(ours, theirs, **bounds)


@pytest.mark.parametrize("alpha", ALPHAS)
def test_a_support_of_the_whole_vocabulary_equals_trl_at_its_bound_on_the_tail(
    make_problem: Make,
    alpha: float,
) -> None:
    """The captured mass is one, and TRL's bound on it leaves a tail of 1e-7."""
    problem = make_problem(6, 3, 8)
    divergence = Divergence("topk_logits", alpha, top_k=8, add_tail=True)
    output = problem.tiled(divergence=divergence, tile_tokens=4)
    logits, teacher_logits = problem.head(problem.student), problem.teacher_head(problem.teacher)
    per_token = trl_per_token(divergence, logits, teacher_logits.detach(), problem.tokens)
    expected = (per_token * problem.weights).sum()
    torch.testing.assert_close(output.loss, expected, rtol=1e-10, atol=1e-10)
    assert_equal_gradients(output.loss, expected, [problem.student, problem.head.weight])


@every_divergence
def test_float32_stays_close_to_float64(make_problem: Make, divergence: Divergence) -> None:
    problem = make_problem(12, 5, 31)
    expected = problem.tiled(divergence=divergence)
    (gradient,) = torch.autograd.grad(expected.loss, problem.student)
    student = problem.student.detach().float().requires_grad_()
    output = tiled_distillation_loss(
        student,
        problem.teacher.float(),
        problem.head.float(),
        problem.teacher_head.float(),
        problem.tokens,
        problem.weights.float(),
        divergence=divergence,
        tile_tokens=5,
    )
    output.loss.backward()
    assert {getattr(output, field.name).dtype for field in fields(output)} == {torch.float32}
    torch.testing.assert_close(output.loss.double(), expected.loss, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(student.grad.double(), gradient, rtol=1e-4, atol=1e-6)
