"""`poise memory`: what a training run needs on each GPU, before it is started."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import torch
from trl import get_peft_config

from .. import memory
from ..isomers.forms import TRAIN_DOMAINS
from ..memory import ALWAYS, ROLLOUTS, TRAINING, Layout, Part
from ..trl.preflight import find_model
from . import iga, launch, pgpo
from .training import add_model_arguments


def main(argv: list[str]) -> int:
    """Run the command."""
    # What this machine is quick in says nothing of the one that is to train.
    speeds = logging.getLogger("poise.precision")
    level = speeds.level
    speeds.setLevel(logging.ERROR)
    try:
        print(table(*count(argv)))
    finally:
        speeds.setLevel(level)
    return 0


def count(argv: Sequence[str]) -> tuple[list[Part], Layout]:
    """The parts of a run, and where they lie: of "pgpo" or "iga" and its command line.

    Raises:
        ValueError: another command, what the command refuses, and what cannot be counted: a
            quantised base, weights in the CPU's memory, domains that nobody names.
    """
    method, *words = argv
    if method not in ("pgpo", "iga"):
        raise ValueError(f"expected pgpo or iga, found {method!r}")
    parser = pgpo.make_parser() if method == "pgpo" else iga.make_parser(words)
    parser.set_defaults(bf16=True)
    (script, config, named), flags = launch.parse(parser, parser.with_new_names(words))
    if named.load_in_4bit or named.load_in_8bit:
        raise ValueError("expected a base that is not quantised, which alone is counted")
    asked = launch.engine_of(launch.parse_flags([*flags, "--module", method]))
    if asked.offloads:
        raise ValueError(
            "expected everything on the GPU, found an engine that keeps a part of it in "
            "the CPU's memory (offload), which is not counted"
        )
    add_model_arguments(config, named)
    dtype = getattr(torch, config.model_init_kwargs["dtype"])
    compute = torch.bfloat16 if config.bf16 else torch.float16 if config.fp16 else dtype
    layout = Layout(asked.kind, 1 if asked.processes is None else asked.processes, compute)
    path = find_model(named.model_name_or_path or "default", config)
    model = memory.meta_model(path, dtype, get_peft_config(named))
    rows = config.per_device_train_batch_size
    if method == "pgpo":
        if layout.engine == "zero3" and config.tiled_loss:
            raise ValueError(
                "under ZeRO-3 PGPO refuses the tiled loss; count with --tiled_loss false, "
                "--multiplier information, --exact_resume false and --teacher_from_student false, "
                "or with ZeRO-2"
            )
        teacher = memory.teacher_states(model, config, layout)
        length = (config.max_prompt_length or 0) + config.max_completion_length
        parts = [
            *memory.states(model, config, layout),
            *teacher,
            *memory.gathered(model, layout, has_teacher=bool(teacher)),
            *memory.activations(model, config, layout, rows, length),
            *memory.distillation(model, config, layout),
            *memory.rollouts(model, config, layout),
        ]
        return parts, layout
    if not config.iga_domains and not iga._is_generated(script.dataset_name):
        raise ValueError("expected the domains that IGA compares; name them by --iga_domains")
    if config.max_length is None:
        raise ValueError("expected --max_length, the longest sequence, found none")
    parts = [
        *memory.states(model, config, layout),
        *memory.domain_gradients(model, config, len(config.iga_domains or TRAIN_DOMAINS)),
        *memory.gathered(model, layout, has_teacher=False),
        *memory.activations(model, config, layout, rows, config.max_length),
    ]
    return parts, layout


def table(parts: Sequence[Part], layout: Layout) -> str:
    """The parts by phase, with sums, in GiB."""

    def line(name: str, size: int) -> str:
        return f"{name:<62}{size / 2**30:>10.2f} GiB"

    ranks = f"{layout.ranks} process" + ("es" if layout.ranks > 1 else "")
    lines = [f"{ranks}, {layout.engine}, products in {str(layout.compute).removeprefix('torch.')}"]
    titles = {ALWAYS: "always", ROLLOUTS: "while rollouts are made", TRAINING: "in a micro-batch"}
    for when, title in titles.items():
        found = [p for p in parts if p.when == when and (p.bytes or "not counted" in p.name)]
        if found:
            lines.append(line(title, sum(p.bytes for p in found)))
            lines += [line(f"  {p.name}", p.bytes) for p in found]
    lines.append(line("each GPU, at the peak", memory.peak(parts)))
    lines.append(
        "Not counted: temporaries of single operations, libraries' own buffers, fragmentation. "
        "Leave a tenth."
    )
    return "\n".join(lines)
