"""Whom `poise eval` asks, what, and where it keeps the answers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..evaluate.loading import Target, find_target
from ..evaluate.runs import AFTER, BEFORE, read_config
from ..isomers.generate import DEPTHS
from ..isomers.model import TRAIN_DOMAINS
from .eval_arguments import EvalArguments

Row = Mapping[str, Any]
DEFAULT_FOLDER = "evaluations"
DEFAULT_DATASET = "facts"
# Questions, if they are made: an interval of about 7 points either way. Of isomers, sets in each
# test: some 20 problems for each.
GENERATED_COUNTS = {"reasoning_gym": 200, "isomers": 50}
# Setting of generated isomers -> where a run keeps that of its training.
_ISOMER_KEYS = {
    "depths": "script.depths",
    "domains": "config.iga_domains",
    "cue_strength": "script.cue_strength",
}
_ISOMER_DEFAULTS = {"depths": DEPTHS, "domains": TRAIN_DOMAINS}


@dataclass(frozen=True)
class Step:
    """One model to ask.

    Args:
        name: What tables call it.
        target: The model.
        files: Where its records go; the first is written, the others are made equal to it.
    """

    name: str
    target: Target
    files: tuple[Path, ...]


def make_steps(arguments: EvalArguments) -> list[Step]:
    """The model first, then what it is compared with.

    Raises:
        FileNotFoundError, ValueError: a name that is no model; compared adapters of different
            base models while no model is named.
    """
    others = [find_target(name, base=arguments.model) for name in arguments.compare]
    first = _first_target(arguments, others)
    if not others:
        return [Step(first.name, first, (_folder(arguments) / f"{first.name}.jsonl",))]
    names = ["after"] if len(others) == 1 else _distinct([target.name for target in others])
    runs = [target.run for target in others if target.run is not None]
    if arguments.output_dir is None and len(runs) == len(others):
        before = tuple(run / BEFORE for run in runs)
        after = [run / AFTER for run in runs]
    else:
        before = (_folder(arguments) / "before.jsonl",)
        after = [_folder(arguments) / f"{name}.jsonl" for name in names]
    steps = [
        Step(name, target, (file,)) for name, target, file in zip(names, others, after, strict=True)
    ]
    return [Step("before", first, before), *steps]


def _folder(arguments: EvalArguments) -> Path:
    return Path(arguments.output_dir or DEFAULT_FOLDER)


def _first_target(arguments: EvalArguments, others: Sequence[Target]) -> Target:
    if arguments.model is not None or arguments.adapter is not None or not others:
        return find_target(arguments.model, adapter=arguments.adapter)
    bases = {_base(target) for target in others}
    if len(bases) > 1:
        raise ValueError(
            f"the compared runs started from different models ({', '.join(map(str, bases))}); "
            "compare them one by one, or name the model to compare with (--model)"
        )
    return find_target(bases.pop())


def _base(target: Target) -> str | None:
    """The model that training started from; None is the default model."""
    if target.adapter is not None:
        return target.model
    if target.run is None:
        return None
    name = read_config(target.run).get("model.model_name_or_path")
    return str(name) if name else None


def _distinct(names: Sequence[str]) -> list[str]:
    """Names that occur several times, and the one of the first model, get a number."""
    totals, seen = Counter(names), Counter[str]()
    result = []
    for name in names:
        seen[name] += 1
        plain = totals[name] == 1 and name != "before"
        result.append(name if plain else f"{name}-{seen[name]}")
    return result


def choose_dataset(arguments: EvalArguments, steps: Sequence[Step]) -> tuple[str, dict[str, Any]]:
    """Name and options of the questions; what is left open is as in the first compared run.

    Raises:
        ValueError: isomers are generated, and the compared runs were trained on different ones.
    """
    script = _section(next(iter(_configs(steps)), {}), "script.")
    dataset = arguments.dataset or script.get("dataset") or DEFAULT_DATASET
    if dataset != script.get("dataset"):
        script = {}
    options = {
        "style": _first(arguments.style, script.get("style")),
        "seed": _first(arguments.question_seed, script.get("question_seed")),
        "count": _first(arguments.questions, GENERATED_COUNTS.get(_kind(dataset))),
        **_isomer_options(arguments, dataset, steps),
    }
    return dataset, {name: value for name, value in options.items() if value is not None}


def choose_template(arguments: EvalArguments, steps: Sequence[Step]) -> dict[str, Any]:
    """What chat templates are told: as in training, unless `--thinking` says otherwise.

    Raises:
        ValueError: the compared runs were trained with different ones.
    """
    own = {} if arguments.thinking is None else {"enable_thinking": arguments.thinking}
    templates = [
        {"enable_thinking": False} | _section(config, "config.chat_template_kwargs.") | own
        for config in _configs(steps)
    ]
    for template in templates:
        if template != templates[0]:
            raise ValueError(
                f"the compared runs were trained with different chat_template_kwargs "
                f"({templates[0]}, {template}); compare them one by one"
            )
    return templates[0] if templates else {"enable_thinking": False} | own


def _configs(steps: Sequence[Step]) -> list[dict[str, Any]]:
    return [read_config(step.target.run) for step in steps if step.target.run is not None]


def _kind(dataset: str) -> str:
    return dataset.partition(":")[0]


def _isomer_options(
    arguments: EvalArguments, dataset: str, steps: Sequence[Step]
) -> dict[str, Any]:
    """The tests, with all else as in the runs' own training: they say what lies beyond it."""
    if _kind(dataset) != "isomers":
        return {}
    trained = [
        {name: config.get(key) for name, key in _ISOMER_KEYS.items()}
        for config in _configs(steps)
        if _kind(config.get("script.dataset") or "") == "isomers"
    ]
    options: dict[str, Any] = {"tests": arguments.tests or True}
    for name in _ISOMER_KEYS:
        own = getattr(arguments, name)
        if own is None and len({_comparable(name, one[name]) for one in trained}) > 1:
            found = "; ".join(str(_first(one[name], "default")) for one in trained)
            raise ValueError(
                f"the compared runs were trained on isomers of different {name} ({found}); "
                f"compare them one by one, or say which to ask for (--{name})"
            )
        options[name] = _first(own, trained[0][name] if trained else None)
    return options


def _comparable(name: str, value: Any) -> Any:
    """A setting of generated isomers with its default put in, without an order."""
    value = _ISOMER_DEFAULTS.get(name) if value is None else value
    return frozenset(value) if isinstance(value, Sequence) else value


def _section(config: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    return {k.removeprefix(prefix): v for k, v in config.items() if k.startswith(prefix)}


def _first(own: Any, inherited: Any) -> Any:
    return inherited if own is None else own


def select(rows: Sequence[Row], limit: int | None, tests: Sequence[str] | None = None) -> list[Row]:
    """At most so many rows of these tests, spread evenly; isomer sets stay whole.

    Raises:
        ValueError: limit is below 1 or the size of an isomer set, or leaves a whole test out; an
            unknown test.
    """
    known = list(dict.fromkeys(row.get("test") for row in rows))
    if unknown := [test for test in tests or () if test not in known]:
        raise ValueError(f"tests: expected some of {known}, found {unknown[0]!r}")
    rows = [row for row in rows if tests is None or row.get("test") in tests]
    if limit is not None and limit < 1:
        raise ValueError(f"limit: expected 1 or more, found {limit}")
    if limit is None or limit >= len(rows):
        return list(rows)
    sets: dict[Any, list[Row]] = {}
    for place, row in enumerate(rows):
        isomer = row.get("isomer_id")
        sets.setdefault(place if isomer is None else (row.get("test"), isomer), []).append(row)
    whole = list(sets.values())
    for count in range(min(limit, len(whole)), 0, -1):
        chosen = [row for i in range(count) for row in whole[i * len(whole) // count]]
        if len(chosen) <= limit:
            break
    else:
        raise ValueError(f"limit: expected {len(whole[0])} or more, one isomer set, found {limit}")
    asked = list(dict.fromkeys(row.get("test") for row in rows))
    if lost := [test for test in asked if test not in {row.get("test") for row in chosen}]:
        raise ValueError(
            f"limit: expected room for an isomer set of each test, found {limit}, which leaves "
            f"out {', '.join(map(str, lost))}; raise it, or name the tests to ask (--tests)"
        )
    return chosen
