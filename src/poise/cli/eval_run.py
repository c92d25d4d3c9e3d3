"""`poise eval` at work: loads each model, asks it, keeps the answers."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch

from ..data.load import load_questions
from ..evaluate.consistency import DEFAULT_CENTER, check_center
from ..evaluate.generation import Sampling
from ..evaluate.loading import Target, check_target, fingerprint, load
from ..evaluate.records import Evaluation, Header, RecordWriter, read_records
from ..evaluate.representation_file import (
    Representations,
    beside,
    kept_representations,
    write_representations,
)
from ..evaluate.representations import has_reference, places_of, represent, settings_of
from ..evaluate.sampling import Prepared, prepare
from ..evaluate.sampling import evaluate as ask
from ..evaluate.scoring import scorer_of
from ..machine import pick_device, pick_dtype
from ..versions import software_versions
from .eval_arguments import EvalArguments
from .eval_lengths import cut_references
from .eval_plan import Row, Step, choose_dataset, choose_template, make_steps, select
from .quiet import hide_bars_of_files


@dataclass(frozen=True)
class Result:
    """A model that was asked, its records, and what it held in mind where it was read."""

    step: Step
    evaluation: Evaluation
    representations: Representations | None = None
    center: str = DEFAULT_CENTER


@dataclass(frozen=True)
class _Setting:
    """What all models of one call share."""

    arguments: EvalArguments
    sampling: Sampling
    device: torch.device
    dtype: torch.dtype
    dataset: str
    options: dict[str, Any]
    template: dict[str, Any]
    rows: Sequence[Row]

    def header(self, target: Target) -> Header:
        """What the records of a model begin with."""
        narrowed = {"limit": self.arguments.limit, "tests": self.arguments.tests}
        return Header(
            model=target.model,
            adapter=target.adapter,
            weights=fingerprint(target),
            dataset=self.dataset,
            split=self.arguments.split,
            selection=self.options | {k: v for k, v in narrowed.items() if v is not None},
            sampling=asdict(self.sampling)
            | {
                "stop": list(self.sampling.stop),
                "chat_template_kwargs": self.template,
                "dtype": str(self.dtype).removeprefix("torch."),
                "batch_size": self.arguments.batch_size,
            },
            seed=self.arguments.seed,
            versions=software_versions(),
        )


def evaluate(arguments: EvalArguments) -> list[Result]:
    """Ask the model and whatever it is compared with; the model's result comes first.

    Raises:
        ValueError: senseless settings, models or questions; records of another evaluation.
        FileNotFoundError: a folder that is not there.
    """
    return ask_all(make_steps(arguments), arguments)


def ask_all(
    steps: Sequence[Step], arguments: EvalArguments, tell: Callable[[int, int], None] | None = None
) -> list[Result]:
    """Ask these models; `tell` is told how many of how many questions one has answered.

    Raises:
        ValueError: as `evaluate`.
    """
    sampling = _sampling(arguments)
    check_center(arguments.center)
    device = pick_device(arguments.device)
    dtype = pick_dtype(arguments.dtype, device)
    dataset, options = choose_dataset(arguments, steps)
    rows = select(_load(dataset, arguments.split, options), arguments.limit, arguments.tests)
    template = choose_template(arguments, steps)
    setting = _Setting(arguments, sampling, device, dtype, dataset, options, template, rows)
    for step in steps:  # before the first one is asked, which takes long
        check_target(step.target)
    return [_evaluate_one(step, setting, step is steps[0], tell) for step in steps]


def _sampling(arguments: EvalArguments) -> Sampling:
    greedy = arguments.temperature == 0.0
    if greedy and arguments.k > 1:
        print("poise eval: temperature 0 is greedy, so k is 1", file=sys.stderr)
    return Sampling(
        k=1 if greedy else arguments.k,
        temperature=arguments.temperature,
        top_p=arguments.top_p,
        max_new_tokens=arguments.max_new_tokens,
        # A shell hands over a backslash and an n.
        stop=tuple(text.replace("\\n", "\n") for text in arguments.stop),
    )


def _load(dataset: str, split: str, options: dict[str, Any]) -> list[Row]:
    return list(load_questions(dataset, split, **options))


def _evaluate_one(
    step: Step, setting: _Setting, warns: bool, tell: Callable[[int, int], None] | None
) -> Result:
    arguments = setting.arguments
    header = setting.header(step.target)
    if arguments.overwrite:
        for file in step.files:
            file.unlink(missing_ok=True)
            beside(file).unlink(missing_ok=True)
    writer, *copies = [RecordWriter(file, header) for file in step.files]
    hide_bars_of_files(step.target.model)
    model, tokenizer = load(step.target, setting.dtype, setting.device)
    longest = setting.sampling.max_new_tokens
    if warns and (cut := cut_references(setting.rows, tokenizer, longest)):
        print(f"poise eval: {cut}", file=sys.stderr)
    questions = prepare(
        setting.rows,
        tokenizer,
        room=_room(model, setting.sampling),
        template=setting.template,
    )
    representations = _read(model, tokenizer, questions, step, setting)
    ask(
        model,
        tokenizer,
        questions,
        writer,
        scorer_of(setting.rows, setting.dataset),
        setting.sampling,
        seed=arguments.seed,
        batch_size=arguments.batch_size,
        label=step.name,
        tell=tell,
    )
    for copy in copies:
        copy.write([record for id, record in writer.done.items() if id not in copy.done])
    return Result(step, read_records(writer.path), representations, arguments.center)


def _read(
    model: Any, tokenizer: Any, questions: Sequence[Prepared], step: Step, setting: _Setting
) -> Representations | None:
    """The model's representations, from the files where they are kept; None without isomers."""
    if not setting.arguments.consistency or not has_reference(questions):
        return None
    header = setting.header(step.target)
    how = settings_of(model, setting.arguments.layer)
    header = replace(header, sampling=how | {"dtype": header.sampling["dtype"]}, seed=0)
    places = places_of(questions)
    files = [beside(file) for file in step.files]
    kept = [kept_representations(file, header, places) for file in files]
    found = next(filter(None, kept), None)
    if found is None:
        label = f"{step.name}: reading"
        vectors = represent(model, tokenizer, questions, layer=how["layer"], label=label)
        found = Representations(header, places, vectors)
    for file, there in zip(files, kept, strict=True):
        if there is None:
            write_representations(file, found)
    return found


def _room(model: Any, sampling: Sampling) -> int | None:
    longest = getattr(model.config, "max_position_embeddings", None)
    return None if longest is None else longest - sampling.max_new_tokens
