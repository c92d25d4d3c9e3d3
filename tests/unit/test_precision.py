"""Precision by the machine: what is quick on it, unless somebody names one."""

from __future__ import annotations

import logging
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from poise import precision

CPU = torch.device("cpu")


@pytest.fixture
def processor(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Sets what a parent has measured of this processor."""

    def be(float32: float, bfloat16: float) -> None:
        monkeypatch.setenv(precision.MEASURED, f"float32={float32} bfloat16={bfloat16}")
        precision.measured_speeds.cache_clear()
        precision._warn_if_slow.cache_clear()

    yield be
    precision.measured_speeds.cache_clear()
    precision._warn_if_slow.cache_clear()


@pytest.mark.parametrize(
    ("bfloat16", "expected"),
    [(1.0, torch.float32), (100.0, torch.float32), (800.0, torch.bfloat16)],
    ids=["emulated", "no quicker", "with AMX"],
)
def test_a_processor_takes_what_is_quick_on_it(
    processor: Any, bfloat16: float, expected: torch.dtype
) -> None:
    processor(90.0, bfloat16)
    assert precision.pick_dtype("auto", CPU) is expected


@pytest.mark.parametrize("ranks", ["WORLD_SIZE", "OMPI_COMM_WORLD_SIZE"])
def test_ranks_on_processors_cannot_disagree(
    ranks: str, processor: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    processor(90.0, 800.0)
    monkeypatch.setenv(ranks, "1")
    assert precision.pick_dtype("auto", CPU) is torch.bfloat16
    monkeypatch.setenv(ranks, "2")
    assert precision.pick_dtype("auto", CPU) is torch.float32
    assert precision.pick_dtype("bfloat16", CPU) is torch.bfloat16


@pytest.mark.parametrize("is_native", [True, False])
def test_cuda_needs_bfloat16_of_its_own(
    is_native: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def is_supported(including_emulation: bool = True) -> bool:
        return including_emulation or is_native

    monkeypatch.setattr(torch.cuda, "is_bf16_supported", is_supported)
    precision._warn_if_slow.cache_clear()
    device = torch.device("cuda")
    assert precision.pick_dtype(device=device) is (torch.bfloat16 if is_native else torch.float32)
    assert precision.pick_dtype("bfloat16", device) is torch.bfloat16
    assert bool(caplog.records) is not is_native
    precision._warn_if_slow.cache_clear()


def test_a_named_dtype_is_kept_and_warned_of_once(
    processor: Any, caplog: pytest.LogCaptureFixture
) -> None:
    processor(90.0, 1.2)
    for _ in range(2):
        assert precision.pick_dtype("bfloat16", CPU) is torch.bfloat16
    (warning,) = caplog.records
    assert "bfloat16 at 1.2" in warning.message and "float32 at 90" in warning.message
    assert precision.pick_dtype("float32", CPU) is torch.float32
    assert len(caplog.records) == 1


def test_other_names_are_refused() -> None:
    with pytest.raises(ValueError, match="dtype: expected one of auto, float32, bfloat16"):
        precision.pick_dtype("float64", CPU)


def test_both_speeds_are_measured_and_said_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.delenv(precision.MEASURED, raising=False)
    precision.measured_speeds.cache_clear()
    caplog.set_level(logging.INFO, "poise")
    threads = torch.get_num_threads()
    speeds = precision.measured_speeds()
    assert precision.measured_speeds() == speeds
    assert min(speeds.values()) > 0
    (line,) = caplog.records
    assert all(f"{speed:.3g}" in line.message for speed in speeds.values())
    assert torch.get_num_threads() == threads
    precision.measured_speeds.cache_clear()


@pytest.mark.parametrize("bfloat16", [1.2, 800.0], ids=["slow", "quick"])
@pytest.mark.parametrize("kind", ["PGPOConfig", "IGAConfig"])
def test_training_arguments_that_name_no_precision_take_the_machines(
    kind: str, bfloat16: float, processor: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    """On a machine without an accelerator, where TRL's own would raise or crawl."""
    import poise

    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda check_available: None)
    processor(90.0, bfloat16)
    config = getattr(poise, kind)(output_dir=str(tmp_path))
    assert config.bf16 is (bfloat16 > 90.0)
    assert config.use_cpu
    assert getattr(poise, kind)(output_dir=str(tmp_path), bf16=True).bf16 is True


def test_half_precision_that_is_named_leaves_no_room_for_bfloat16(processor: Any) -> None:
    processor(90.0, 800.0)
    arguments = SimpleNamespace(bf16=None, fp16=True, use_cpu=True)
    precision.settle_precision(arguments)
    assert arguments.bf16 is False


@pytest.mark.parametrize(
    ("use_cpu", "variable", "has_xla", "expected"),
    [
        (False, None, False, "cuda"),
        (False, "false", False, "cuda"),
        (True, None, False, "cpu"),
        (False, "true", False, "cpu"),
        (False, None, True, "xla"),
        (True, None, True, "cpu"),
    ],
)
def test_bfloat16_is_asked_of_the_device_that_is_trained_on(
    use_cpu: bool,
    variable: str | None,
    has_xla: bool,
    expected: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """On a machine with CUDA, whose processor is quick in bfloat16 and whose GPU is not."""
    if variable is None:
        monkeypatch.delenv("ACCELERATE_USE_CPU", raising=False)
    else:
        monkeypatch.setenv("ACCELERATE_USE_CPU", variable)
    cuda = torch.device("cuda")
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda check_available: cuda)
    monkeypatch.setattr("transformers.utils.is_torch_xla_available", lambda: has_xla)
    monkeypatch.setattr(precision, "has_fast_bfloat16", lambda device: device.type != "cuda")
    arguments = SimpleNamespace(bf16=None, fp16=False, use_cpu=use_cpu)
    precision.settle_precision(arguments)
    assert arguments.bf16 is (expected != "cuda")
    assert arguments.use_cpu is (expected == "cpu")


@pytest.mark.parametrize(
    ("bf16", "fp16", "is_frozen", "expected"),
    [
        (True, False, True, "bfloat16"),
        (False, True, True, "float16"),
        (False, False, True, "float32"),
        (True, False, False, "float32"),
        (False, True, False, "float32"),
    ],
)
def test_trained_weights_are_float32_and_frozen_ones_as_the_products(
    bf16: bool, fp16: bool, is_frozen: bool, expected: str
) -> None:
    arguments = SimpleNamespace(bf16=bf16, fp16=fp16)
    assert precision.weights_dtype(arguments, is_frozen) == expected
