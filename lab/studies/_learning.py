"""What studies of isomers share: a run of `IGATrainer` under a cue, and its controls.

Controls take from IGA what domains say: labels change places ("shuffled domains"), or random
directions stand in for those of the direction space ("random directions").
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from ._settings import require_choice

CONTROLS = (None, "shuffled domains", "random directions")


def check_cue(config: dict[str, Any]) -> None:
    """Refuse strengths and controls outside their range.

    Raises:
        ValueError: one is; or random directions have none to take the place of.
    """
    for name in ("strength", "train_strength"):
        value = config.get(name)
        if value is not None and not 0 <= value <= 1:
            raise ValueError(f"{name}: expected a number in [0, 1] or null, found {value!r}")
    require_choice(config, "control", CONTROLS, None)
    if config.get("control") == "random directions" and config.get("space") != "direction":
        raise ValueError(
            "control: 'random directions' are of space 'direction', found space "
            f"{config.get('space')!r}"
        )


def learn(
    config: dict[str, Any],
    model: str,
    rows: list[dict[str, Any]],
    curve: Any,
    make_arguments: Callable[[dict[str, Any], str], Any],
) -> dict[str, Any]:
    """`poise.demo.learning.learn`, under the control that the run's settings name.

    Args:
        config: the run's settings.
        model: folder of a model.
        rows: isomer sets to train on.
        curve: an `AnswerCurve`, which measures along the way.
        make_arguments: makes `IGAConfig` of settings and output folder.
    """
    from poise.demo import learning

    if config.get("control") == "shuffled domains":
        rows = shuffle_domains(rows, config["seed"])

    def prepare(trainer: Any) -> None:
        if config.get("control") == "random directions":
            use_random_directions(trainer.engine, config["seed"])

    arguments = partial(make_arguments, config)
    return learning.learn(model, rows, curve, arguments, config["lora_rank"], prepare)


def shuffle_domains(rows: Sequence[dict[str, Any]], seed: int) -> list[dict[str, Any]]:
    """Isomer sets whose members' domain labels change places, set by set."""
    rng = random.Random(f"shuffled domains {seed}")
    sets: dict[Any, list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        sets[row["isomer_id"]].append(row)
    shuffled = []
    for members in sets.values():
        labels = rng.sample([row["domain"] for row in members], len(members))
        shuffled += [row | {"domain": label} for row, label in zip(members, labels, strict=True)]
    return shuffled


def use_random_directions(engine: Any, seed: int) -> None:
    """Make the direction space project off as many random directions, the same in every step."""
    import torch

    from poise.iga.direction_space import DirectionSpace

    generator = torch.Generator().manual_seed(seed)

    class RandomDirections(DirectionSpace):
        def _find_directions(self) -> None:
            for layer in self._layers:
                if layer.running is not None and layer.basis is None:
                    groups, domains, width = layer.running.shape
                    drawn = torch.randn(width - 1, groups * (domains - 1), generator=generator)
                    layer.basis = torch.linalg.qr(drawn.to(layer.running))[0]

    kept_off = engine.method.applied_to == "update"
    engine._space = RandomDirections(engine.adapters, kept_off)
