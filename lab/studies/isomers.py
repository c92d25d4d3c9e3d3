"""Studies 3 and 4: what is learned from isomers under a shortcut, by IGA and by its peers.

A tiny model that knows the order of symbols in eight domains (`poise.demo.ranking`) learns a new
question about them by LoRA, in some of the domains, with `IGATrainer`. Settings of a run: `size` of
the tiny model (a name of `ranking.SIZES`), `domains` (how many are trained), `strength` of the cue
(None for none), `steps`, `sequences` a step and `train_sequences` in all (a set has one for each
domain, so that more domains mean fewer sets of the same number of tokens), `test_sets`,
`test_every` steps, `lora_rank`, `algorithm` (`IGAConfig`'s `iga_method`: the harness has that name
already), and any other argument of `IGAConfig`. `train_strength` trains with another cue than the
tests have (an oracle: null). `cue` is its kind: "place" (in the list), or "spelling" (see
`ranking`). `control` is one of `_learning.CONTROLS`.

Figures by test: accuracy, that of the worst domain, and the Logical Consistency Score; and the
means over the tests out of distribution, at the end and along the way. `counted/accuracy`: the mean
over the tests that `counted` names, those on which an oracle shows that the logic can be learned.
`reliance`: accuracy with the cue minus that with the cue reversed.
"""

from __future__ import annotations

import statistics
from typing import Any

from poise.demo import ranking

from ._learning import check_cue, learn
from ._settings import (
    iga_config,
    require_arguments,
    require_choice,
    require_counts,
    require_test_at_the_end,
)

COUNTS = (
    *("seed", "domains", "steps", "sequences", "train_sequences", "test_sets", "test_every"),
    "lora_rank",
)
OWN = (
    *(name for name in COUNTS if name != "seed"),
    *("method", "algorithm", "strength", "train_strength", "size"),
    *("cue", "control", "counted"),
)


def check(config: dict[str, Any]) -> None:
    """Refuse what the study or the trainer does not take.

    Raises:
        ValueError: a setting of the study is missing or outside its range, or the trainer's
            configuration refuses one.
    """
    require_counts(config, COUNTS)
    require_test_at_the_end(config)
    require_choice(config, "size", ranking.SIZES, "full")
    size = _size(config)
    if config["domains"] > (most := len(size.domains) - len(size.held_out)):
        raise ValueError(f"domains: expected at most {most}, found {config['domains']}")
    for name in ("sequences", "train_sequences"):
        if config[name] % config["domains"]:
            raise ValueError(
                f"{name}: expected a multiple of the {config['domains']} domains, found "
                f"{config[name]}"
            )
    check_cue(config)
    require_choice(config, "cue", ranking.CUES, "place")
    if unknown := set(config.get("counted", [])) - set(ranking.TESTS):
        expected = ", ".join(ranking.TESTS)
        raise ValueError(f"counted: expected some of {expected}, found {', '.join(unknown)}")
    require_arguments(config, _arguments)


def run(config: dict[str, Any]) -> dict[str, Any]:
    """One run and its figures."""
    from poise.demo.learning import AnswerCurve

    seed, size = config["seed"], _size(config)
    domains = size.domains[: config["domains"]]
    strength, cue = config.get("strength"), config.get("cue", "place")
    sets = config["train_sequences"] // len(domains)
    trained = config.get("train_strength", strength)
    rows = ranking.isomers(sets, seed, "train", domains, trained, cue=cue)
    tests = ranking.tests(config["test_sets"], seed, domains, strength, size.held_out, cue)
    curve = AnswerCurve(tests, config["test_every"])
    model = ranking.model_folder(seed, size)
    figures = learn(config, model, rows, curve, _arguments)
    if counted_tests := config.get("counted"):
        counted = statistics.fmean(figures[f"{test}/accuracy"] for test in counted_tests)
        figures["counted/accuracy"] = counted
    return figures


def _size(config: dict[str, Any]) -> ranking.Size:
    return ranking.SIZES[config.get("size", "full")]


def _arguments(config: dict[str, Any], folder: str) -> Any:
    return iga_config(
        config,
        OWN,
        folder,
        per_device_train_batch_size=config["sequences"],
        bf16=False,
        use_cpu=True,
        logging_steps=config["test_every"],
    )
