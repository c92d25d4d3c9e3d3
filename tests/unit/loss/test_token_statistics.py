"""Statistics without a loss, and log-probabilities alone."""

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
    tiled_entropy,
    tiled_log_probs,
    tiled_token_logps,
    token_statistics,
)


@pytest.fixture
def inputs() -> dict[str, Any]:
    torch.manual_seed(0)
    return {
        "student": torch.randn(13, 11, dtype=torch.float64),
        "teacher": torch.randn(13, 11, dtype=torch.float64),
        "tokens": torch.randint(11, (13,)),
        "mask": torch.arange(13) % 4 != 1,
    }


@pytest.mark.parametrize("tile", [None, 1, 5, 50])
def test_they_are_those_of_the_loss(inputs: dict[str, Any], tile: int | None) -> None:
    statistics = token_statistics(**inputs, tile_tokens=tile)
    loss = tiled_distillation_loss(
        inputs["student"],
        inputs["teacher"],
        lambda logits: logits,
        lambda logits: logits,
        inputs["tokens"],
        inputs["mask"].double(),
        divergence=Divergence("full_logits", 1.0),
    )
    for field in fields(TiledStatistics):
        found = getattr(statistics, field.name)
        torch.testing.assert_close(found, getattr(loss, field.name))
        assert not found.requires_grad
        assert torch.equal(getattr(statistics.view_as(found[:, None]), field.name), found[:, None])
    torch.testing.assert_close(statistics.kl, loss.per_token_loss)


def test_masked_tokens_are_zero_whatever_they_hold(inputs: dict[str, Any]) -> None:
    expected = token_statistics(**inputs)
    masked = ~inputs["mask"]
    inputs["student"][masked] = float("nan")
    inputs["tokens"][masked] = -100
    found = token_statistics(**inputs)
    for field in fields(found):
        value = getattr(found, field.name)
        torch.testing.assert_close(value, getattr(expected, field.name))
        assert not value[masked].any()


def test_readings_are_those_of_the_log_softmax(inputs: dict[str, Any]) -> None:
    head, tokens, mask = nn.Linear(11, 7, dtype=torch.float64), inputs["tokens"] % 7, inputs["mask"]
    hidden = inputs["student"]
    every = (head(hidden) / 0.7).log_softmax(-1).detach()
    torch.testing.assert_close(tiled_log_probs(hidden, head, 0.7), every)
    cases = (
        (tiled_token_logps, (tokens,), every.gather(-1, tokens[:, None])[:, 0]),
        (tiled_entropy, (), -(every.exp() * every).sum(-1)),
    )
    for read, more, expected in cases:
        for tile in (None, 1, 4, 99):
            found = read(hidden, head, *more, 0.7, tile)
            torch.testing.assert_close(found, expected)
            assert not found.requires_grad
        masked = read(hidden, head, *more, 0.7, mask=mask)
        torch.testing.assert_close(masked, torch.where(mask, expected, 0.0))
        assert read(hidden[:0], head, *(m[:0] for m in more)).shape == (0,)


def test_low_precision_gives_float32(inputs: dict[str, Any]) -> None:
    inputs["student"] = inputs["student"].bfloat16()
    assert token_statistics(**inputs).kl.dtype == torch.float32


def test_default_tiles_are_bounded_in_bytes() -> None:
    assert default_tile_tokens(49_152) == 128
    assert default_tile_tokens(49_152, 576) == 128  # the CPU's do not grow with the head
    assert default_tile_tokens(49_152, 576, "cuda") == 341
    assert default_tile_tokens(128_256, 4096, "cuda") == 512  # a quarter of a head of 1 GB
    assert default_tile_tokens(10**9) == 1
    assert default_tile_tokens(1) * 4 == 24 * 2**20


BadInput = Callable[[dict[str, Any]], dict[str, Any]]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda i: {"student": i["student"][:5]}, r"student must be .*\[13, width\]"),
        (lambda i: {"student": i["student"].long()}, "student must be floating point"),
        (lambda i: {"tokens": i["tokens"].int()}, "tokens must be int64"),
        (lambda i: {"tokens": i["tokens"][None]}, "Flatten batch and time"),
        (lambda i: {"tokens": i["tokens"] - 100}, "Give padding weight"),
        (lambda i: {"mask": i["mask"][1:]}, "mask must have one value a token"),
        (lambda i: {"teacher": i["teacher"][:, 1:]}, "share one vocabulary"),
    ],
)
def test_bad_input_has_one_clear_error(
    inputs: dict[str, Any], change: BadInput, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        token_statistics(**inputs | change(inputs))


def test_a_head_that_gives_no_logits_is_refused() -> None:
    def head(hidden: Tensor) -> Tensor:
        return hidden.sum()

    with pytest.raises(ValueError, match=r"logits \[n, V\]"):
        tiled_log_probs(torch.ones(3, 4), head)
