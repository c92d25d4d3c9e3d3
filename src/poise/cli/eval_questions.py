"""What `poise eval` asks: what is not named is as it was in the training of the compared runs."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..evaluate.runs import read_config
from ..evaluate.scoring import Row
from ..isomers.forms import TRAIN_DOMAINS
from ..isomers.generate import DEPTHS
from ..isomers.rows import name_of_test
from ..rows import text_of
from .eval import EvalArguments

DEFAULT_DATASET = "facts"
# Questions, if they are made: an interval of about 7 points either way. Of isomers, sets in each
# test: some 20 problems for each.
_GENERATED_COUNTS = {"reasoning_gym": 200, "isomers": 50}
# Setting of generated isomers -> where a run keeps that of its training, and its default there.
_ISOMER_SETTINGS: dict[str, tuple[str, Sequence[Any] | None]] = {
    "depths": ("script.depths", DEPTHS),
    "domains": ("config.iga_domains", TRAIN_DOMAINS),
    "cue_strength": ("script.cue_strength", None),
}


def choose_dataset(arguments: EvalArguments, runs: Sequence[Path]) -> tuple[str, dict[str, Any]]:
    """Name and options of the questions; what is left open is as in the first of the runs.

    Raises:
        ValueError: Isomers are generated, and the runs were trained on different ones.
    """
    configs = [read_config(run) for run in runs]
    script = _section(configs[0] if configs else {}, "script.")
    dataset = arguments.dataset_name or script.get("dataset_name") or DEFAULT_DATASET
    if dataset != script.get("dataset_name"):
        script = {}
    elif dataset.endswith(".jsonl"):
        print(
            f"poise eval: {dataset} is the training's own file, so these are the questions that "
            "were trained on; name others by --dataset_name",
            file=sys.stderr,
        )
    options = {
        "style": _first(arguments.style, script.get("style")),
        "seed": _first(arguments.question_seed, script.get("question_seed")),
        "count": _first(arguments.count, generated_count(dataset)),
        **(_isomer_options(arguments, configs) if _kind(dataset) == "isomers" else {}),
    }
    return dataset, {name: value for name, value in options.items() if value is not None}


def generated_count(dataset: str) -> int | None:
    """How many questions an evaluation has, of a data set that makes them; None for all."""
    return _GENERATED_COUNTS.get(_kind(dataset))


def _isomer_options(arguments: EvalArguments, configs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The tests, with all else as in the runs' training: they say what lies beyond it."""
    trained = [c for c in configs if _kind(c.get("script.dataset_name") or "") == "isomers"]
    options: dict[str, Any] = {"tests": arguments.tests or True}
    for name, (key, default) in _ISOMER_SETTINGS.items():
        own, found = getattr(arguments, name), [config.get(key) for config in trained]
        used = [_first(value, default) for value in found]
        if own is None and len({frozenset(x) if isinstance(x, Sequence) else x for x in used}) > 1:
            said = "; ".join(str(_first(value, "default")) for value in found)
            raise ValueError(
                f"the compared runs were trained on isomers of different {name} ({said}); "
                f"compare them one by one, or say which to ask for (--{name})"
            )
        options[name] = _first(own, found[0] if found else None)
    return options


def choose_template(arguments: EvalArguments, runs: Sequence[Path]) -> dict[str, Any]:
    """Arguments of chat templates: as in training, unless `--thinking` says otherwise.

    Raises:
        ValueError: The runs were trained with different ones.
    """
    own = {} if arguments.thinking is None else {"enable_thinking": arguments.thinking}
    first, *others = (
        {"enable_thinking": False} | _section(config, "config.chat_template_kwargs.") | own
        for config in [read_config(run) for run in runs] or [{}]
    )
    for template in others:
        if template != first:
            raise ValueError(
                f"the compared runs were trained with different chat_template_kwargs "
                f"({first}, {template}); compare them one by one"
            )
    return first


def _kind(dataset: str) -> str:
    return dataset.partition(":")[0]


def _section(config: dict[str, Any], prefix: str) -> dict[str, Any]:
    return {k.removeprefix(prefix): v for k, v in config.items() if k.startswith(prefix)}


def _first(own: Any, inherited: Any) -> Any:
    return inherited if own is None else own


def select(rows: Sequence[Row], limit: int | None, tests: Sequence[str] | None = None) -> list[Row]:
    """At most `limit` rows of these tests, spread evenly; isomer sets stay whole. A column `test`
    is the test's name in them, as `name_of_test` reads it, or None.

    Raises:
        ValueError: limit is below 1 or the size of an isomer set, or leaves a whole test out; an
            unknown test.
    """
    rows = [{**r, "test": name_of_test(r) or None} if "test" in r else r for r in rows]
    known = list(dict.fromkeys(row.get("test") for row in rows))
    if unknown := [test for test in tests or () if test not in known]:
        raise ValueError(f"tests: expected some of {known}, found {unknown[0]!r}")
    rows = [row for row in rows if tests is None or row.get("test") in tests]
    if limit is not None and limit < 1:
        raise ValueError(f"limit: expected 1 or more, found {limit}")
    if limit is None or limit >= len(rows):
        return rows
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
    kept = {row.get("test") for row in chosen}
    if lost := [
        str(test) for test in known if (tests is None or test in tests) and test not in kept
    ]:
        raise ValueError(
            f"limit: expected room for an isomer set of each test, found {limit}, which leaves "
            f"out {', '.join(lost)}; raise it, or name the tests to ask (--tests)"
        )
    return chosen


def cut_references(rows: Sequence[Row], tokenizer: Any, max_new_tokens: int) -> str | None:
    """One line on isomers whose reference completions are too long, None if there are none."""
    seen, longer, longest = Counter[str](), Counter[str](), 0
    for row in rows:
        if not row.get("isomer_id") or not row.get("completion"):
            continue
        text = text_of(row["completion"])
        length = len(tokenizer(text, add_special_tokens=False)["input_ids"])
        test = row.get("test") or "all"
        seen[test] += 1
        longer[test] += length > max_new_tokens
        longest = max(longest, length)
    if longest <= max_new_tokens:
        return None
    shares = ", ".join(f"{test} {n} of {seen[test]}" for test, n in longer.items() if n)
    return (
        f"reference completions are longer than max_new_tokens ({max_new_tokens}): {shares}; "
        f"answers may be cut, the longest takes {longest} (--max_new_tokens)"
    )
