"""Study 3 on a real language model: logical isomers in words, under a shortcut.

Generated isomers of `poise.isomers` with a cue, LoRA, and the whole of `IGATrainer`; then every
test of `poise eval`, greedily. Settings of a run: `model`, as `models.resolve_model` takes it;
`families` and `depths` of the problems; `strength` of the cue (None for none); `sets` a step and
`steps`; `lora_rank`; `test_sets` in each test, `new_tokens` of an answer and `stop`, texts that end
one; `algorithm` (`IGAConfig`'s `iga_method`), and any other argument of `IGAConfig`.

Figures by test, and for the mean over the tests out of distribution: accuracy, that of the worst
domain, answer disagreement and the Logical Consistency Score.
"""

from __future__ import annotations

import statistics
import tempfile
from typing import TYPE_CHECKING, Any

from poise.evaluate.isomers import MEAN, OUT_OF_DISTRIBUTION

from ._settings import iga_config, require_arguments, require_counts

if TYPE_CHECKING:
    from collections.abc import Mapping

    from poise.evaluate.isomers import Outcome

COUNTS = ("seed", "steps", "sets", "lora_rank", "test_sets", "new_tokens")
OWN = (
    *(name for name in COUNTS if name != "seed"),
    *("method", "algorithm", "model", "families", "depths", "strength", "stop"),
)


def check(config: dict[str, Any]) -> None:
    """Refuse what the study, the generator or the trainer does not take.

    Raises:
        ValueError: a setting is missing or outside its range.
    """
    require_counts(config, COUNTS)
    _rows(config | {"sets": 1, "steps": 1})
    require_arguments(config, _arguments)


def run(config: dict[str, Any]) -> dict[str, Any]:
    """One run and its figures."""
    from poise import IGATrainer
    from poise.evaluate.ask import Sampling
    from poise.evaluate.isomers import outcomes

    from ._language_model import ask, make_trainer, read

    with tempfile.TemporaryDirectory() as folder:
        trainer = make_trainer(IGATrainer, config, _arguments(config, folder), _rows(config))
        trainer.train()
    tests = _rows(config, tests=True)
    sampling = Sampling(
        k=1,
        temperature=0.0,
        max_new_tokens=config["new_tokens"],
        stop=tuple(config.get("stop", ())),
    )
    found = outcomes(ask(trainer, tests, sampling), read(trainer, tests))
    losses = [line["loss"] for line in trainer.state.log_history if "loss" in line]
    return _figures(found) | {"train_loss": losses}


def _figures(found: Mapping[str, Outcome]) -> dict[str, float]:
    figures: dict[str, float] = {}
    for test, outcome in found.items():
        figures[f"{test}/accuracy"] = outcome.accuracy.mean
        figures[f"{test}/worst_domain"] = outcome.worst.mean
        for name in ("disagreement", "consistency"):
            if (interval := getattr(outcome, name)) is not None:
                figures[f"{test}/{name}"] = interval.mean
    # As in `isomers`: a mean over tests, where the outcome names the worst of all.
    worst = [found[test].worst.mean for test in OUT_OF_DISTRIBUTION if test in found]
    figures[f"{MEAN}/worst_domain"] = statistics.fmean(worst)
    return figures


def _rows(config: dict[str, Any], tests: bool = False) -> Any:
    """The training set, or all tests one after the other."""
    from poise.isomers.rows import load_isomers

    return load_isomers(
        config.get("families"),
        "test" if tests else "train",
        config["test_sets"] if tests else config["sets"] * config["steps"],
        config["seed"],
        config.get("depths", [1]),
        cue_strength=config.get("strength"),
        tests=tests,
    )


def _arguments(config: dict[str, Any], folder: str) -> Any:
    import torch

    from poise.isomers.forms import TRAIN_DOMAINS

    return iga_config(
        config,
        OWN,
        folder,
        per_device_train_batch_size=config["sets"] * len(TRAIN_DOMAINS),
        use_cpu=not torch.cuda.is_available(),
        logging_steps=1,
    )
