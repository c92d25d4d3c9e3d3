"""Statistics without a loss: from hidden states, from ready logits, and log-probabilities alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from poise.loss.divergence import Divergence
from poise.loss.tiled import (
    TiledStatistics,
    default_tile_tokens,
    tiled_distillation_loss,
    tiled_log_probs,
    tiled_token_logps,
    token_statistics,
)


@pytest.fixture
def inputs() -> dict[str, Any]:
    torch.manual_seed(0)
    heads = nn.Linear(4, 11, dtype=torch.float64), nn.Linear(3, 11, dtype=torch.float64)
    return {
        "student": torch.randn(13, 4, dtype=torch.float64),
        "teacher": torch.randn(13, 3, dtype=torch.float64),
        "tokens": torch.randint(11, (13,)),
        "student_head": heads[0],
        "teacher_head": heads[1],
        "mask": torch.arange(13) % 4 != 1,
    }


def assert_equal(one: TiledStatistics, other: TiledStatistics) -> None:
    for field in fields(TiledStatistics):
        torch.testing.assert_close(getattr(one, field.name), getattr(other, field.name))


@pytest.mark.parametrize("tile", [None, 1, 5, 50])
def test_they_are_those_of_the_loss(inputs: dict[str, Any], tile: int | None) -> None:
    statistics = token_statistics(**inputs, temperature=0.8, tile_tokens=tile)
    loss = tiled_distillation_loss(
        inputs["student"],
        inputs["teacher"],
        inputs["student_head"],
        inputs["teacher_head"],
        inputs["tokens"],
        inputs["mask"].double(),
        divergence=Divergence("full_logits", 1.0),
        temperature=0.8,
    )
    assert_equal(statistics, loss)
    torch.testing.assert_close(statistics.kl, loss.per_token_loss)
    assert not any(getattr(statistics, f.name).requires_grad for f in fields(statistics))


def test_they_take_the_shape_of_a_mask(inputs: dict[str, Any]) -> None:
    statistics = token_statistics(**inputs)
    viewed = statistics.view_as(torch.zeros(13, 1))
    for field in fields(TiledStatistics):
        expected = getattr(statistics, field.name).unsqueeze(1)
        assert torch.equal(getattr(viewed, field.name), expected), field.name


def test_ready_logits_need_no_head(inputs: dict[str, Any]) -> None:
    expected = token_statistics(**inputs)
    logits = {side: inputs[f"{side}_head"](inputs[side]) for side in ("student", "teacher")}
    found = token_statistics(**logits, tokens=inputs["tokens"], mask=inputs["mask"], tile_tokens=3)
    assert_equal(found, expected)


def test_masked_tokens_are_zero_whatever_they_hold(inputs: dict[str, Any]) -> None:
    expected = token_statistics(**inputs)
    masked = ~inputs["mask"]
    inputs["student"][masked] = float("nan")
    inputs["tokens"][masked] = -100
    found = token_statistics(**inputs)
    assert_equal(found, expected)
    assert all(not getattr(found, field.name)[masked].any() for field in fields(found))


def test_logps_are_the_selected_log_softmax(inputs: dict[str, Any]) -> None:
    hidden, head, tokens = inputs["student"], inputs["student_head"], inputs["tokens"]
    expected = (head(hidden) / 0.7).log_softmax(-1).gather(-1, tokens[:, None])[:, 0]
    for tile in (None, 1, 4, 99):
        logps = tiled_token_logps(hidden, head, tokens, 0.7, tile)
        torch.testing.assert_close(logps, expected.detach())
        assert not logps.requires_grad
    every = tiled_log_probs(hidden, head, 0.7)
    torch.testing.assert_close(every, (head(hidden) / 0.7).log_softmax(-1).detach())
    masked = tiled_token_logps(hidden, head, tokens, 0.7, mask=inputs["mask"])
    torch.testing.assert_close(masked, torch.where(inputs["mask"], expected.detach(), 0.0))


def test_no_token_at_all_is_an_empty_answer(inputs: dict[str, Any]) -> None:
    empty = {name: inputs[name][:0] for name in ("student", "teacher", "tokens", "mask")}
    statistics = token_statistics(**inputs | empty)
    assert statistics.kl.shape == (0,)
    nothing = tiled_token_logps(empty["student"], inputs["student_head"], empty["tokens"])
    assert nothing.shape == (0,)


def test_low_precision_gives_float32(inputs: dict[str, Any]) -> None:
    inputs["student"] = inputs["student"].bfloat16()
    inputs["student_head"].bfloat16()
    assert token_statistics(**inputs).kl.dtype == torch.float32


def test_default_tiles_are_bounded_in_bytes() -> None:
    assert default_tile_tokens(49_152) == 128
    assert default_tile_tokens(49_152, 576) == 128  # the CPU's do not grow with the head
    assert default_tile_tokens(49_152, 576, "cuda") == 341
    assert default_tile_tokens(128_256, 4096, "cuda") == 512  # a quarter of a head of 1 GB
    assert default_tile_tokens(10**9) == 1
    assert default_tile_tokens(1) * 4 == 24 * 2**20


BadInput = Callable[[dict[str, Any]], dict[str, Any]]


def wrong_head(hidden: Tensor) -> Tensor:
    return hidden.sum()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda i: {"student": i["student"][:5]}, r"student must be .*\[13, width\]"),
        (lambda i: {"student": i["student"].long()}, "student must be floating point"),
        (lambda i: {"teacher": i["teacher"][None]}, "teacher must be floating point of shape"),
        (lambda i: {"tokens": i["tokens"].int()}, "tokens must be int64"),
        (lambda i: {"tokens": i["tokens"][None]}, "Flatten batch and time"),
        (lambda i: {"tokens": i["tokens"] + 11}, r"tokens must lie in \[0, 11\)"),
        (lambda i: {"tokens": i["tokens"] - 100}, "Give padding weight"),
        (lambda i: {"mask": i["mask"][1:]}, "mask must have one value a token"),
        (lambda i: {"teacher_head": nn.Linear(3, 9).double()}, "share one vocabulary"),
        (lambda i: {"student_head": wrong_head}, r"logits \[n, V\]"),
        (lambda i: {"temperature": 0.0}, "temperature must be positive"),
        (lambda i: {"temperature": float("nan")}, "temperature must be positive"),
        (lambda i: {"tile_tokens": 0}, "tile_tokens must be at least 1"),
    ],
)
def test_bad_input_has_one_clear_error(
    inputs: dict[str, Any], change: BadInput, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        token_statistics(**inputs | change(inputs))
