"""How `poise eval` asks: which models, one after the other, and where their answers are kept."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from ..data.load import load_questions
from ..evaluate import load, vllm
from ..evaluate.ask import Prepared, Sampling, ask_questions, check_answered, prepare
from ..evaluate.records import (
    Evaluation,
    Header,
    RecordWriter,
    Representations,
    beside,
    read_continued,
    read_records,
)
from ..evaluate.represent import find_kept, read_missing
from ..evaluate.runs import AFTER, BEFORE, read_config
from ..evaluate.scoring import Row, Score, scorer_of
from ..precision import pick_device, pick_dtype
from ..versions import software_versions
from .eval import EvalArguments
from .eval_questions import choose_dataset, choose_template, cut_references, select
from .quiet import hide_bars_of_files

Tell = Callable[[int, int], None]


@dataclass(frozen=True)
class Step:
    """One model to ask."""

    name: str  # what tables call it
    target: load.Target
    files: tuple[Path, ...]  # of its records; the others are made equal to the first


@dataclass(frozen=True)
class Result:
    """A model that was asked, its records, and what it held in mind where it was read."""

    step: Step
    evaluation: Evaluation
    representations: Representations | None


def make_steps(arguments: EvalArguments) -> list[Step]:
    """The model first, then what it is compared with.

    Raises:
        FileNotFoundError, ValueError: A name that is no model; compared adapters of different
            base models while no model is named.
    """
    others = [load.find_target(name, base=arguments.model) for name in arguments.compare]
    model = arguments.model
    if model is None and arguments.adapter is None and others:
        model = _common_base(others)
    first = load.find_target(model, adapter=arguments.adapter)
    folder = Path(arguments.output_dir or "evaluations")
    if not others:
        return [Step(first.name, first, (folder / f"{first.name}.jsonl",))]
    names = ["after"] if len(others) == 1 else _distinct([target.name for target in others])
    before, after = [folder / "before.jsonl"], [folder / f"{name}.jsonl" for name in names]
    runs = [target.run for target in others if target.run is not None]
    if arguments.output_dir is None and len(runs) == len(others):
        before, after = [run / BEFORE for run in runs], [run / AFTER for run in runs]
    steps = zip(names, others, after, strict=True)
    return [
        Step("before", first, tuple(before)),
        *(Step(name, target, (file,)) for name, target, file in steps),
    ]


def _distinct(names: Sequence[str]) -> list[str]:
    """Names that occur several times, and the one of the first model, get a number."""
    result = []
    for i, name in enumerate(names):
        is_taken = names.count(name) > 1 or name == "before"
        result.append(f"{name}-{names[: i + 1].count(name)}" if is_taken else name)
    return result


def _common_base(targets: Sequence[load.Target]) -> str | None:
    """The model that training started from; None is the default model."""
    bases = set()
    for target in targets:
        named = read_config(target.run).get("model.model_name_or_path")
        bases.add(target.model if target.adapter is not None else str(named) if named else None)
    if len(bases) > 1:
        raise ValueError(
            f"the compared runs started from different models ({', '.join(map(str, bases))}); "
            "compare them one by one, or name the model to compare with (--model)"
        )
    return bases.pop()


def ask_all(
    steps: Sequence[Step], arguments: EvalArguments, tell: Tell | None = None
) -> list[Result]:
    """Ask these models, and keep their answers; `tell` hears how many of how many a model has.

    Raises:
        ValueError: Senseless settings, models or questions; records of another evaluation.
    """
    if arguments.temperature == 0.0 and arguments.k > 1:
        print("poise eval: temperature 0 is greedy, so k is 1", file=sys.stderr)
    sampling = _sampling(arguments)
    dtype = pick_dtype(arguments.dtype, pick_device(arguments.device))
    runs = [step.target.run for step in steps if step.target.run is not None]
    dataset, options = choose_dataset(arguments, runs)
    questions = list(load_questions(dataset, arguments.split, **options))
    rows = select(questions, arguments.limit, arguments.tests)
    score = scorer_of(rows, dataset)
    narrowed = {"limit": arguments.limit, "tests": arguments.tests}
    shared = Header(
        model="",
        dataset=dataset,
        split=arguments.split,
        selection=options | {k: v for k, v in narrowed.items() if v is not None},
        sampling=asdict(sampling)
        | {
            "stop": list(sampling.stop),
            "chat_template_kwargs": choose_template(arguments, runs),
            "dtype": str(dtype).removeprefix("torch."),
            "batch_size": arguments.batch_size,
        }
        | ({"engine": "vllm"} if arguments.use_vllm else {}),
        seed=arguments.seed,
        versions=software_versions(),
    )
    # All before the first one is asked, which takes long.
    ready = [_prepare(step, arguments, shared, rows) for step in steps]
    tokenizer = load.load_tokenizer(steps[0].target)
    if cut := cut_references(rows, tokenizer, arguments.max_new_tokens):
        print(f"poise eval: {cut}", file=sys.stderr)
    if arguments.use_vllm:
        vllm.check_vllm([step.target for step in steps], arguments.device)
    return [
        _ask_one(step, arguments, *own, score, tell) for step, own in zip(steps, ready, strict=True)
    ]


def _sampling(arguments: EvalArguments) -> Sampling:
    return Sampling(
        k=1 if arguments.temperature == 0.0 else arguments.k,
        temperature=arguments.temperature,
        top_p=arguments.top_p,
        max_new_tokens=arguments.max_new_tokens,
        # A shell hands over a backslash and an n.
        stop=tuple(text.replace("\\n", "\n") for text in arguments.stop),
    )


def _prepare(
    step: Step, arguments: EvalArguments, shared: Header, rows: list[Row]
) -> tuple[Header, list[Prepared], Any]:
    """Header, questions and kept representations of a model, checked against its files."""
    target = step.target
    config, weights = load.check_target(target), load.fingerprint(target)
    header = replace(shared, model=target.model, adapter=target.adapter, weights=weights)
    longest = getattr(config, "max_position_embeddings", None)
    room = None if longest is None else longest - arguments.max_new_tokens
    template = header.sampling["chat_template_kwargs"]
    questions = prepare(rows, load.load_tokenizer(target), room=room, template=template)
    files = () if arguments.overwrite else step.files
    for file in files:
        if found := read_continued(file, header):
            check_answered(questions, found.questions, file)
    if not arguments.consistency:
        return header, questions, None
    return header, questions, find_kept(config, questions, header, files, arguments.layer)


def _ask_one(
    step: Step,
    arguments: EvalArguments,
    header: Header,
    questions: list[Prepared],
    kept: Any,
    score: Score,
    tell: Tell | None,
) -> Result:
    if arguments.overwrite:
        for file in step.files:
            file.unlink(missing_ok=True)
            beside(file).unlink(missing_ok=True)
    writer, *copies = [RecordWriter(file, header) for file in step.files]
    hide_bars_of_files(step.target.model)
    dtype = getattr(torch, header.sampling["dtype"])
    model, tokenizer = load.load(step.target, dtype, pick_device(arguments.device))
    representations = None
    if kept is not None:
        label = f"{step.name}: reading"
        representations = read_missing(model, tokenizer, questions, kept, step.files, label)
    sampling = _sampling(arguments)
    asked: Any = nullcontext(model)
    if arguments.use_vllm:
        most = sampling.max_new_tokens + max(len(question.tokens) for question in questions)
        asked = vllm.loaded(step.target, dtype, most, model.generation_config)
    del model  # its memory is vLLM's
    with asked as model:
        ask_questions(
            model,
            tokenizer,
            questions,
            writer,
            score,
            sampling,
            seed=arguments.seed,
            batch_size=arguments.batch_size,
            label=step.name,
            tell=tell,
            draw=vllm.complete if arguments.use_vllm else None,
        )
    for copy in copies:
        copy.write([record for id, record in writer.done.items() if id not in copy.done])
    return Result(step, read_records(writer.path), representations)
