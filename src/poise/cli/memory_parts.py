"""The parts of memory that a command line of `poise pgpo` or `poise iga` asks for."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import torch
from trl import get_peft_config

from .. import memory
from ..isomers.forms import TRAIN_DOMAINS
from ..memory import Layout, Part
from ..trl.preflight import find_model
from . import engine, iga, pgpo
from .training import add_model_arguments

_GIB = 2**30
_NOT_COUNTED = (
    "Not counted: temporaries of single operations, libraries' own buffers, fragmentation. Leave "
    "a tenth."
)


def count(argv: Sequence[str]) -> tuple[list[Part], Layout]:
    """The parts of a run, and where they lie.

    Args:
        argv: "pgpo" or "iga", then a command line as that command takes it.

    Raises:
        ValueError: another command, what the command refuses, and what cannot be counted: a
            quantised base, weights in the CPU's memory, domains that nobody names.
    """
    # What this machine is quick in says nothing of the one that is to train.
    speeds = logging.getLogger("poise.precision")
    level = speeds.level
    speeds.setLevel(logging.ERROR)
    try:
        return _count(*argv)
    finally:
        speeds.setLevel(level)


def _count(method: str, *words: str) -> tuple[list[Part], Layout]:
    if method not in ("pgpo", "iga"):
        raise ValueError(f"expected pgpo or iga, found {method!r}")
    parser = pgpo.make_parser() if method == "pgpo" else iga.make_parser(words)
    parser.set_defaults(bf16=True)
    (script, config, named), flags = engine.parse(parser, parser.with_new_names(words))
    if named.load_in_4bit or named.load_in_8bit:
        raise ValueError("expected a base that is not quantised, which alone is counted")
    layout = _layout(engine.engine_of(engine.parse_flags([*flags, "--module", method])), config)
    add_model_arguments(config, named)
    dtype = getattr(torch, config.model_init_kwargs["dtype"])
    if not config.bf16 and not config.fp16:
        layout = Layout(layout.engine, layout.ranks, dtype)
    path = find_model(named.model_name_or_path or "default", config)
    model = memory.meta_model(path, dtype, get_peft_config(named))
    if method == "pgpo":
        return _of_pgpo(model, config, layout), layout
    return _of_iga(model, config, layout, _domains(script, config)), layout


def _layout(asked: engine.Engine, config: Any) -> Layout:
    if asked.offloads:
        raise ValueError(
            "expected everything on the GPU, found an engine that keeps a part of it in "
            "the CPU's memory (offload), which is not counted"
        )
    compute = torch.bfloat16 if config.bf16 else torch.float16 if config.fp16 else torch.float32
    return Layout(asked.kind, 1 if asked.processes is None else asked.processes, compute)


def _domains(script: Any, config: Any) -> int:
    if config.iga_domains:
        return len(config.iga_domains)
    if iga._is_generated(script.dataset_name):
        return len(TRAIN_DOMAINS)
    raise ValueError("expected the domains that IGA compares; name them by --iga_domains")


def _of_pgpo(model: Any, config: Any, layout: Layout) -> list[Part]:
    if layout.engine == "zero3" and config.tiled_loss:
        raise ValueError(
            "under ZeRO-3 PGPO refuses the tiled loss; count with --tiled_loss false, --multiplier "
            "information, --exact_resume false and --teacher_from_student false, or with ZeRO-2"
        )
    teacher = memory.teacher_states(model, config, layout)
    length = (config.max_prompt_length or 0) + config.max_completion_length
    rows = config.per_device_train_batch_size
    return [
        *memory.states(model, config, layout),
        *teacher,
        *memory.gathered(model, layout, has_teacher=bool(teacher)),
        *memory.activations(model, config, layout, rows, length),
        *memory.distillation(model, config, layout),
        *memory.rollouts(model, config, layout),
    ]


def _of_iga(model: Any, config: Any, layout: Layout, domains: int) -> list[Part]:
    rows, length = config.per_device_train_batch_size, config.max_length
    if length is None:
        raise ValueError("expected --max_length, the longest sequence, found none")
    return [
        *memory.states(model, config, layout),
        *memory.domain_gradients(model, config, domains),
        *memory.gathered(model, layout, has_teacher=False),
        *memory.activations(model, config, layout, rows, length),
    ]


def table(parts: Sequence[Part], layout: Layout) -> str:
    """The parts by phase, with sums, in GiB."""
    ranks = f"{layout.ranks} process" + ("es" if layout.ranks > 1 else "")
    lines = [f"{ranks}, {layout.engine}, products in {str(layout.compute).removeprefix('torch.')}"]
    for when, title in (
        (memory.ALWAYS, "always"),
        (memory.ROLLOUTS, "while rollouts are made"),
        (memory.TRAINING, "in a micro-batch"),
    ):
        found = [p for p in parts if p.when == when and (p.bytes or "not counted" in p.name)]
        if found:
            lines.append(_line(title, sum(p.bytes for p in found)))
            lines += [_line(f"  {p.name}", p.bytes) for p in found]
    return "\n".join([*lines, _line("each GPU, at the peak", memory.peak(parts)), _NOT_COUNTED])


def _line(name: str, bytes_: int) -> str:
    return f"{name:<62}{bytes_ / _GIB:>10.2f} GiB"
