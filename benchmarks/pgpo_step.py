"""One optimizer step of PGPO beside TRL's SDPO: ratios of time and of memory beyond the weights.

    python benchmarks/pgpo_step.py [--tokens 1024] [--rounds 5] [--sides S ...] [--growth] [--json]

Both trainers take steps of their own `train()` on the same batch, prepared beforehand: random
tokens, no padding, nothing generated; with `--generate` each step rolls out by itself. Timed is
TRL's loop from the step's begin to its end: student's and teacher's forward, loss, backward,
clipping, optimizer, EMA teacher. The embedded model in bfloat16 (weights, autocast) where the
machine is quick in it (`--dtype`), LoRA of rank 16 on all linear layers, every other argument each
trainer's default (activations are checkpointed; `--no-checkpointing`).

`multiplier_time` is the same trainer at sensitivity 1 and without a multiplier; the signal is
logged, and so measured, in both. `distance_time` is that of distance control, which measures on a
share of the sequences how far each step moved the policy, and without; `measuring_time` is a step
of distance control to the same step without the seconds of that, which other work on the machine
spoils less. `vs_trl_jsd` is Jensen-Shannon over the vocabulary on both sides, `vs_trl_topk` the top
100 and a tail on both; `full_vs_trl_topk` is Poise over the whole vocabulary against TRL's top 100.

Sides run in turns, fairest with an even number of rounds; a ratio is that of medians, its spread
the smallest and largest of the rounds. Memory: each side in a process of its own takes a small step
first (libraries, optimizer state); then what tensors hold at the peak of a step beyond what they
held before it, and the same for the resident set, in which malloc keeps what is freed. `--growth`
repeats all at other numbers of tokens and, by resizing the embeddings, at other vocabularies.
`--sides poise_jsd` measures Poise's own additions alone, quickly.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from measure import Peak, Ratio, can_measure_memory, in_own_process, in_turns, peak_beyond, ratio
from poise.precision import DTYPES
from sdpo_side import SIDES, Setting, Side

RATIOS = {
    "vs_trl_jsd": ("poise_jsd", "trl_jsd"),
    "vs_trl_topk": ("poise_topk", "trl_topk"),
    "full_vs_trl_topk": ("poise_jsd", "trl_topk"),
}
OFF, DISTANCE = "multiplier off", "distance control"  # poise_jsd's own trainer
REST = "its steps without measuring"  # of distance control, the same steps


def time_sides(setting: Setting, rounds: int, names: Sequence[str]) -> dict[str, list[float]]:
    """Seconds of every round by side."""
    with tempfile.TemporaryDirectory() as folder:
        sides = {side: Side(side, setting, folder) for side in names}
        steps = {}
        if "poise_jsd" in sides:  # beside it, so that both have like neighbours
            steps[OFF] = lambda: sides["poise_jsd"].step("none")
            steps[DISTANCE] = lambda: sides["poise_jsd"].step("distance")
        steps |= {side: built.step for side, built in sides.items()}
        seconds = in_turns(steps, rounds, f"{setting.tokens} tokens")
        if DISTANCE in seconds:
            measuring = sides["poise_jsd"].measuring[-rounds:]
            pairs = zip(seconds[DISTANCE], measuring, strict=True)
            seconds[REST] = [whole - part for whole, part in pairs]
        return seconds


def memory_of(side: str, setting: Setting) -> Peak:
    """Of a step, beyond weights, adapters and optimizer state."""
    with tempfile.TemporaryDirectory() as folder:
        built = Side(side, setting, folder)
        built.resize(setting.sequences)  # one token each: loads libraries, makes Adam's moments
        built.step()
        for parameter in built.trainer.model.parameters():
            parameter.detach().sum()  # weights that lie in a mapped file are resident from here
        built.resize(setting.tokens)
        return peak_beyond(built.step, setting.device)


@dataclass(frozen=True)
class Measured:
    """Ratios of one setting by key, and what they are made of."""

    seconds: dict[str, list[float]]
    memory: dict[str, Peak]

    def times(self) -> dict[str, Ratio]:
        pairs = {"multiplier": ("poise_jsd", OFF), "distance": (DISTANCE, OFF)} | RATIOS
        pairs["measuring"] = (DISTANCE, REST)
        return {
            f"{key}_time": ratio(self.seconds, *pair)
            for key, pair in pairs.items()
            if set(pair) <= set(self.seconds)
        }

    def memories(self) -> dict[str, float]:
        found = {}
        for key, pair in RATIOS.items():
            if not set(pair) <= set(self.memory):
                continue
            own, peer = (self.memory[side] for side in pair)
            found[f"{key}_memory"] = own.allocated / peer.allocated
            found[f"{key}_resident"] = own.resident / peer.resident
        return found

    def report(self) -> dict[str, float]:
        times = {key: found.middle for key, found in self.times().items()}
        return {key: round(value, 3) for key, value in (times | self.memories()).items()}


def measure(setting: Setting, arguments: argparse.Namespace) -> Measured:
    memory = not arguments.no_memory and can_measure_memory(arguments.device)
    peaks = {side: in_own_process(memory_of, side, setting) for side in arguments.sides if memory}
    return Measured(time_sides(setting, arguments.rounds, arguments.sides), peaks)


def grown(setting: Setting, arguments: argparse.Namespace) -> dict[str, dict[int, Setting]]:
    """Settings beside the first, by what grows and how large it is."""
    if not arguments.growth:
        return {}
    return {
        "tokens": {n: replace(setting, tokens=n) for n in arguments.growth_tokens},
        "vocabulary": {n: replace(setting, vocabulary=n) for n in arguments.growth_vocabulary},
    }


def table(title: str, found: Measured) -> Table:
    shown = Table("", "ratio (rounds)", title=title)
    for key, value in (found.times() | found.memories()).items():
        shown.add_row(key, f"{value:.3f}" if isinstance(value, float) else str(value))
    for side, seconds in found.seconds.items():
        times = " ".join(f"{s:.2f}" for s in seconds)
        peak = ""
        if side in found.memory:
            own = found.memory[side]
            peak = f", {own.allocated / 2**20:.0f} MiB, resident {own.resident / 2**20:.0f} MiB"
        shown.add_row(side, f"{times} s{peak}", style="dim")
    return shown


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tokens", type=int, default=1024, help="completion tokens of a step")
    parser.add_argument("--sequences", type=int, default=8, help="which share them, at least 2")
    parser.add_argument("--prompt", type=int, default=64, help="tokens; the teacher's has twice")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--sides", nargs="+", choices=SIDES, default=list(SIDES))
    parser.add_argument("--growth", action="store_true", help="other tokens and vocabularies, too")
    parser.add_argument("--growth-tokens", type=int, nargs="+", default=[256, 512, 2048])
    parser.add_argument("--growth-vocabulary", type=int, nargs="+", default=[24_576, 98_304])
    parser.add_argument("--model", default="default")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--dtype", default="auto", choices=DTYPES[:3])
    parser.add_argument(
        "--checkpointing",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="of activations, on both sides",
    )
    parser.add_argument("--generate", action="store_true", help="time the rollouts too")
    parser.add_argument("--no-memory", action="store_true")
    parser.add_argument("--json", action="store_true", help="print one JSON object of ratios")
    arguments = parser.parse_args(argv)
    for name, least in (("tokens", 1), ("sequences", 2), ("prompt", 1), ("rounds", 1)):
        if getattr(arguments, name) < least:
            found = getattr(arguments, name)
            parser.error(f"--{name} must be at least {least}, found {found}")
    return arguments


def main(argv: Sequence[str] | None = None) -> None:
    arguments = parse(argv)
    names = (
        "model",
        "device",
        "dtype",
        "tokens",
        "sequences",
        "prompt",
        "checkpointing",
        "generate",
    )
    setting = Setting(**{name: getattr(arguments, name) for name in names})
    first = measure(setting, arguments)
    report: dict[str, Any] = first.report()
    report["spread"] = {k: [round(r.low, 3), round(r.high, 3)] for k, r in first.times().items()}
    console = Console(file=sys.stderr if arguments.json else sys.stdout)
    console.print(table(f"{setting.tokens} completion tokens", first))
    for what, settings in grown(setting, arguments).items():
        for size, other in settings.items():
            found = measure(other, arguments)
            console.print(table(f"{what}: {size}", found))
            for key, value in found.report().items():
                report.setdefault(f"{key}_by_{what}", {})[str(size)] = value
    if arguments.json:
        print(json.dumps(report))


if __name__ == "__main__":
    main()
