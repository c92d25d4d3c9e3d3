"""Which precision a machine is quick in, for whoever names none.

bfloat16 where the hardware has it, else float32. A processor's flags do not tell: many of them have
bfloat16 only in name, at a hundredth of the speed. So there the two are tried, by one product each.
"""

from __future__ import annotations

import logging
import os
import time
from contextlib import suppress
from functools import cache
from typing import Any

import torch

logger = logging.getLogger(__name__)

DTYPES = ("auto", "float32", "bfloat16", "float16")
# What a parent has measured, in GFLOP/s: "float32=90.1 bfloat16=1.2".
MEASURED = "POISE_GFLOPS"
# Choice: less than this is noise, or not worth the lost digits.
_WORTHWHILE, _CRAWLS = 1.25, 5.0
# Rows, inner and outer width of the product: a batch of tokens in a layer of a small model.
_ROWS, _INNER, _OUTER = 32, 512, 512
# Where launchers say how many ranks there are, as Accelerate reads it.
_RANKS = ("WORLD_SIZE", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE")
_PATIENCE = 0.02  # seconds after which a product is not tried again


def pick_device(name: str | torch.device | None = None) -> torch.device:
    """The named device, else the accelerator if there is one, else the CPU."""
    if name:
        return torch.device(name)
    return torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")


def pick_dtype(name: str = "auto", device: str | torch.device | None = None) -> torch.dtype:
    """The named one of `DTYPES`, with a warning where it crawls; for "auto" the quick one."""
    if name not in DTYPES:
        raise ValueError(f"dtype: expected one of {', '.join(DTYPES)}, found {name!r}")
    if name == "auto":
        return torch.bfloat16 if has_fast_bfloat16(device) else torch.float32
    dtype: torch.dtype = getattr(torch, name)
    warn_if_slow(dtype, device)
    return dtype


def has_fast_bfloat16(device: str | torch.device | None = None) -> bool:
    """Whether bfloat16 pays on the device: natively on CUDA, by measurement on the CPU, at all on
    other accelerators (Metal has it from macOS 14 on).

    Choice: not on the CPU of one rank among several, which might measure otherwise than the others.
    """
    device = pick_device(device)
    if device.type == "cpu":
        is_alone = all(int(os.environ.get(name, 1)) <= 1 for name in _RANKS)
        return is_alone and _pays(measured_speeds())
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return _can_multiply(device)


@cache
def _can_multiply(device: torch.device) -> bool:
    try:
        one = torch.ones(8, 8, dtype=torch.bfloat16, device=device)
        return float((one @ one)[0, 0]) == 8.0
    except (RuntimeError, TypeError):
        return False


def warn_if_slow(dtype: torch.dtype, device: str | torch.device | None = None) -> None:
    """Warn once if the device computes in another dtype over five times faster."""
    _warn_if_slow(dtype, pick_device(device).type)


@cache
def _warn_if_slow(dtype: torch.dtype, device: str) -> None:
    name = str(dtype).removeprefix("torch.")
    if device == "cpu" and dtype in (torch.float32, torch.bfloat16):
        speeds = measured_speeds()
        best = max(speeds, key=speeds.__getitem__)
        if speeds[best] > _CRAWLS * speeds[name]:
            logger.warning(
                "This processor computes %s at %.3g GFLOP/s a core and %s at %.3g: name %s, or "
                "leave it to the machine.",
                *(name, speeds[name], best, speeds[best], best),
            )
    elif dtype == torch.bfloat16 and not has_fast_bfloat16(device):
        logger.warning("This accelerator has no bfloat16 of its own, which makes it slow.")


def settle_precision(arguments: Any) -> None:
    """Decide what training arguments leave open: `bf16`, and `use_cpu` without an accelerator,
    where TRL's own default is an error."""
    device = _training_device(arguments.use_cpu)
    arguments.use_cpu = device.type == "cpu"
    if arguments.bf16 is None:
        arguments.bf16 = not arguments.fp16 and has_fast_bfloat16(device)
    elif arguments.bf16:
        warn_if_slow(torch.bfloat16, device)


def _training_device(use_cpu: bool) -> torch.device:
    """Where transformers trains: of a TPU torch knows nothing, and Accelerate's variable counts."""
    from accelerate.utils import parse_flag_from_env
    from transformers.utils import is_torch_xla_available

    if use_cpu or parse_flag_from_env("ACCELERATE_USE_CPU"):
        return torch.device("cpu")
    return pick_device("xla" if is_torch_xla_available() else None)


def weights_dtype(arguments: Any, is_frozen: bool) -> str:
    """In what a model is loaded for training, as transformers names it.

    Trained weights are float32, since most updates are below bfloat16's rounding; autocast makes
    the products quick. Frozen ones, under adapters, are in the products' own precision.
    """
    if is_frozen and arguments.bf16:
        return "bfloat16"
    return "float16" if is_frozen and arguments.fp16 else "float32"


@cache
def measured_speeds() -> dict[str, float]:
    """GFLOP/s of one core of this processor, by dtype; child processes read it from `MEASURED`."""
    names = ("float32", "bfloat16")
    with suppress(KeyError, ValueError):  # nobody has measured
        pairs = dict(pair.split("=") for pair in os.environ[MEASURED].split())
        return {name: float(pairs[name]) for name in names}
    # One thread: several would wait for each other where other work is going on.
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        work = 2e-9 * _ROWS * _INNER * _OUTER
        speeds = {name: work / _shortest_time(getattr(torch, name)) for name in names}
    finally:
        torch.set_num_threads(threads)
    os.environ[MEASURED] = " ".join(f"{name}={speed:.4g}" for name, speed in speeds.items())
    logger.info(
        "This processor computes float32 at %.3g GFLOP/s a core and bfloat16 at %.3g; `auto` is %s "
        "on it.",
        *(*speeds.values(), "bfloat16" if _pays(speeds) else "float32"),
    )
    return speeds


def _pays(speeds: dict[str, float]) -> bool:
    return speeds["bfloat16"] > _WORTHWHILE * speeds["float32"]


def _shortest_time(dtype: torch.dtype) -> float:
    """Seconds of the quickest of a few products; a slow one is made once."""
    left = torch.ones(_ROWS, _INNER, dtype=dtype, device="cpu")
    right = torch.ones(_INNER, _OUTER, dtype=dtype, device="cpu")
    times: list[float] = []
    with torch.inference_mode():
        while len(times) < 5 and sum(times[1:]) < _PATIENCE:  # the first one also prepares
            began = time.perf_counter()
            left @ right
            times.append(time.perf_counter() - began)
    return min(times)


def keep_differentiable(model: Any) -> None:
    """Keeps gradients flowing through bitsandbytes' layers of 4 bits after a pass without training.

    On a CPU with AVX512-BF16 such a pass packs the weights for good, and what reads them then has
    no gradient: layers below would be trained by a wrong one, without an error.
    """
    for name, module in model.named_modules():
        if not hasattr(module, "support_avx512bf16_for_cpu"):
            continue
        module.support_avx512bf16_for_cpu = False
        if getattr(getattr(module.weight, "quant_state", None), "packing_format_for_cpu", False):
            raise ValueError(
                f"{name}: bitsandbytes has packed its weights for inference, through which no "
                "gradient flows; load the model anew, and train before you run it"
            )
