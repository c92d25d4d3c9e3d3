"""What curves of training a report shows: quantities by their log keys."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from .runs import Run


@dataclass(frozen=True)
class Line:
    """One quantity: its name in the legend and the log keys that may hold it."""

    keys: tuple[str, ...]
    label: str = ""


@dataclass(frozen=True)
class Panel:
    """One picture.

    Args:
        title: What it shows.
        unit: Label of the vertical axis.
        lines: Its quantities.
        neutral: Value that means "no effect", drawn as a thin line.
        rate: Whether values lie in [0, 1].
        steep: Whether the axis may become logarithmic.
        noisy: Whether a running mean helps the eye; a schedule is drawn as it is.
        method: The method that logs it, as the first part of its log keys; empty for any.
        by_colour: Whether colours tell quantities apart, as for the many of one run.
    """

    title: str
    unit: str
    lines: tuple[Line, ...]
    neutral: float | None = None
    rate: bool = False
    steep: bool = False
    noisy: bool = True
    method: str = ""
    by_colour: bool = False


_PGPO = (
    Panel("Reward", "mean reward", (Line(("self_distillation/reward_mean", "reward")),), rate=True),
    Panel("Information signal", "nats per token", (Line(("pgpo/information_signal",)),), 0.0),
    Panel("Step multiplier", "times the plain step", (Line(("pgpo/multiplier",)),), 1.0),
    Panel(
        "Entropy",
        "nats per token",
        (
            Line(("pgpo/student_entropy",), "student"),
            Line(("pgpo/teacher_entropy",), "teacher"),
        ),
    ),
    Panel("Completion length", "tokens", (Line(("completions/mean_length",)),)),
    Panel(
        "Samples distilled",
        "share of samples",
        (Line(("pgpo/distilled_fraction", "self_distillation/reprompt_sample_fraction")),),
        rate=True,
    ),
)
_IGA = (
    Panel("Mean mask", "mean over parameters", (Line(("iga/mask_mean",)),), 1.0, rate=True),
    Panel("Suppressed energy", "share", (Line(("iga/suppressed_energy",)),), rate=True),
    Panel("Agreement of domains", "mean cosine", (Line(("iga/agreement",)),), 0.0),
    Panel("Energy kept by the projection", "share", (Line(("iga/rank_energy",)),), rate=True),
)
_ANY = (
    Panel(
        "Gradient norm",
        "L2 norm",
        (
            Line(("grad_norm",), "before clipping"),
            Line(("pgpo/grad_norm_clipped",), "after clipping"),
        ),
        steep=True,
    ),
    Panel(
        "Learning rate",
        "per step",
        (
            Line(("learning_rate",), "scheduler's"),
            Line(("pgpo/effective_learning_rate",), "times the multiplier"),
        ),
        noisy=False,
    ),
    Panel("Loss", "loss", (Line(("loss",)),)),
)
# Every panel whose log keys are known beforehand.
PANELS = (
    *(replace(panel, method="pgpo") for panel in _PGPO),
    *(replace(panel, method="iga") for panel in _IGA),
    *_ANY,
)
# A trainer of the same kind without the method logs a part of its quantities.
_KIN = {"pgpo": {"pgpo", "self_distillation"}}
DOMAIN_LOSS = "iga/loss/"


def panels_of(runs: Sequence[Run]) -> list[Panel]:
    """The panels of the methods that these runs used, and those of any training."""
    methods = set().union(*(run.methods for run in runs))
    return [p for p in PANELS if not p.method or _KIN.get(p.method, {p.method}) & methods]


def domain_losses(runs: Sequence[Run]) -> list[tuple[Run, Panel]]:
    """For each run that logged losses by domain a panel; domains look alike in all of them."""
    found = {run.name: _domains(run) for run in runs}
    names = sorted(set().union(*found.values()))
    lines = tuple(Line((DOMAIN_LOSS + name,), name) for name in names)
    several = len(runs) > 1
    return [
        (run, Panel(f"Loss by domain{f': {run.name}' * several}", "loss", lines, by_colour=True))
        for run in runs
        if found[run.name]
    ]


def _domains(run: Run) -> set[str]:
    keys = {key for line in run.metrics for key in line if key.startswith(DOMAIN_LOSS)}
    return {key.removeprefix(DOMAIN_LOSS) for key in keys}
