"""`poise eval`: accuracy of a model, and what training has changed.

Libraries are imported in functions, so that `--help` needs neither torch nor transformers.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .arguments import CommandParser, option

if TYPE_CHECKING:
    import torch

    from ..evaluate.ask import Prepared, Sampling
    from ..evaluate.load import Target
    from ..evaluate.records import Evaluation, Header, Representations
    from ..evaluate.scoring import Row, Score

DEFAULT_FOLDER = "evaluations"


@dataclass
class EvalArguments:
    """Whom to ask, what, and how. Settings without a default of their own are taken from the
    compared run, where there is one."""

    model: str | None = option(
        None,
        "Model: a local folder, a hub id, or 'default' for the embedded one. Left out with "
        "--adapter or --compare: the model that was trained there.",
    )
    adapter: str | None = option(None, "Folder of a PEFT adapter to put upon the model.")
    compare: list[str] = option(
        [],
        "Evaluate these too and compare each with the model: run folders, adapters or models. "
        "Run folders keep the records, and `poise report` shows them.",
    )
    dataset_name: str | None = option(
        None, "Questions, as in `poise pgpo`. By default those of the run, else 'facts'."
    )
    split: str = option("test", "Split of the data set.")
    count: int | None = option(
        None, "How many questions; None means 200 where they are generated, else all."
    )
    style: str | None = option(None, "Form of generated prompts: 'chat', 'plain' or 'short'.")
    question_seed: int | None = option(None, "Seed of generated questions.")
    limit: int | None = option(
        None, "Ask at most this many questions, spread evenly over the data set."
    )
    tests: list[str] | None = option(
        None,
        "Tests of isomers to ask, e.g. in_distribution reversed unseen_domains; by default all.",
    )
    depths: list[int] | None = option(
        None, "Reasoning steps of generated isomers; by default those of the compared run."
    )
    domains: list[str] | None = option(
        None,
        "Domains of training, of generated isomers; the test of unseen domains asks the others. By "
        "default those of the compared run.",
    )
    cue_strength: float | None = option(
        None,
        "How often the surface cue of generated isomers is right in training; by default that of "
        "the compared run. Without it there are no tests of the cue.",
    )
    consistency: bool = option(
        True,
        "Read the models' representations of isomers, for the Logical Consistency Score.",
    )
    layer: int | None = option(
        None,
        "Layer of these: 0 is the embeddings; by default two thirds of the way to the last block.",
    )
    center: str = option(
        "mean",
        "What is taken off them before they are compared: 'mean', 'standard' (also scales each "
        "dimension) or 'none'.",
    )
    k: int = option(16, "Samples per question.")
    temperature: float = option(0.6, "Sampling temperature; 0 is greedy, with one sample.")
    top_p: float = option(0.95, "Least mass of the likeliest tokens to draw from.")
    max_new_tokens: int = option(512, "Longest completion in tokens.")
    stop: list[str] = option(
        [],
        "Texts that end a completion, which is cut before the first of them. \\n is a line break: "
        "--stop '\\n' for answers of one line.",
    )
    thinking: bool | None = option(
        None,
        "Whether models think whose chat template has a switch for it. By default as the compared "
        "run was trained, else they do not.",
        nargs="?",
        const=True,
    )
    seed: int = option(0, "Seed of the samples.")
    batch_size: int = option(
        64,
        "Most completions in flight at a time; the samples depend on it. Take hundreds with vLLM.",
    )
    use_vllm: bool = option(
        False,
        'Ask through vLLM (pip install "poise[vllm]"), which is several times faster. Greedy '
        "answers are the same but for rounding, samples are others.",
    )
    dtype: str = option(
        "auto", "float32, bfloat16, float16, or auto: bfloat16 where the machine is quick in it."
    )
    device: str | None = option(None, "Device, e.g. 'cpu'. By default an accelerator if any.")
    output_dir: str | None = option(
        None, "Folder of the records. By default RUN/evaluation, without a run evaluations/."
    )
    overwrite: bool = option(False, "Start anew instead of going on with records that are there.")
    json: bool = option(False, "Print one JSON object instead of tables.")


def make_parser() -> CommandParser:
    """The parser of the command line and of `--config FILE.yaml`."""
    return CommandParser(
        EvalArguments,
        prog="poise eval",
        description="Measure accuracy: avg@k, pass@k and maj@k with 95 % intervals, and the "
        "paired difference between a model and others. "
        "Before and after training in one call: poise eval --compare RUN",
    )


def main(argv: list[str]) -> int:
    """Run the command."""
    (arguments,) = make_parser().parse_args_and_config(argv)
    from .eval_tables import show_json, show_tables

    results = ask_all(make_steps(arguments), arguments)
    show_json(results) if arguments.json else show_tables(results)
    return 0


@dataclass(frozen=True)
class Step:
    """One model to ask."""

    name: str  # what tables call it
    target: Target
    files: tuple[Path, ...]  # of its records; the others are made equal to the first


@dataclass(frozen=True)
class Result:
    """A model that was asked, its records, and what it held in mind where it was read."""

    step: Step
    evaluation: Evaluation
    representations: Representations | None
    center: str


def make_steps(arguments: EvalArguments) -> list[Step]:
    """The model first, then what it is compared with.

    Raises:
        FileNotFoundError, ValueError: A name that is no model; compared adapters of different
            base models while no model is named.
    """
    from ..evaluate.load import find_target
    from ..evaluate.runs import AFTER, BEFORE

    others = [find_target(name, base=arguments.model) for name in arguments.compare]
    if arguments.model is None and arguments.adapter is None and others:
        first = find_target(_common_base(others))
    else:
        first = find_target(arguments.model, adapter=arguments.adapter)
    folder = Path(arguments.output_dir or DEFAULT_FOLDER)
    if not others:
        return [Step(first.name, first, (folder / f"{first.name}.jsonl",))]
    names = ["after"] if len(others) == 1 else _distinct([target.name for target in others])
    before: tuple[Path, ...] = (folder / "before.jsonl",)
    after = [folder / f"{name}.jsonl" for name in names]
    runs = [target.run for target in others if target.run is not None]
    if arguments.output_dir is None and len(runs) == len(others):
        before, after = tuple(run / BEFORE for run in runs), [run / AFTER for run in runs]
    steps = zip(names, others, after, strict=True)
    return [
        Step("before", first, before),
        *(Step(name, target, (file,)) for name, target, file in steps),
    ]


def _common_base(targets: Sequence[Target]) -> str | None:
    """The model that training started from; None is the default model."""
    from ..evaluate.runs import read_config

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


def _distinct(names: Sequence[str]) -> list[str]:
    """Names that occur several times, and the one of the first model, get a number."""
    totals, seen = Counter(names), Counter[str]()
    result = []
    for name in names:
        seen[name] += 1
        result.append(name if totals[name] == 1 and name != "before" else f"{name}-{seen[name]}")
    return result


def ask_all(
    steps: Sequence[Step], arguments: EvalArguments, tell: Callable[[int, int], None] | None = None
) -> list[Result]:
    """Ask these models, and keep their answers.

    Args:
        steps: The models.
        arguments: What to ask, and how.
        tell: Is called with how many of how many questions a model has answered.

    Raises:
        ValueError: Senseless settings, models or questions; records of another evaluation.
    """
    from ..data.load import load_questions
    from ..evaluate.ask import Sampling
    from ..evaluate.isomers import check_center
    from ..evaluate.scoring import scorer_of
    from ..evaluate.vllm import check_vllm
    from ..precision import pick_device, pick_dtype
    from .eval_questions import choose_dataset, choose_template, select

    greedy = arguments.temperature == 0.0
    if greedy and arguments.k > 1:
        print("poise eval: temperature 0 is greedy, so k is 1", file=sys.stderr)
    sampling = Sampling(
        k=1 if greedy else arguments.k,
        temperature=arguments.temperature,
        top_p=arguments.top_p,
        max_new_tokens=arguments.max_new_tokens,
        # A shell hands over a backslash and an n.
        stop=tuple(text.replace("\\n", "\n") for text in arguments.stop),
    )
    check_center(arguments.center)
    device = pick_device(arguments.device)
    dtype = pick_dtype(arguments.dtype, device)
    runs = [step.target.run for step in steps if step.target.run is not None]
    dataset, options = choose_dataset(arguments, runs)
    questions = list(load_questions(dataset, arguments.split, **options))
    rows = select(questions, arguments.limit, arguments.tests)
    scorer = scorer_of(rows, dataset)
    template = choose_template(arguments, runs)
    plan = _Plan(arguments, sampling, device, dtype, dataset, options, template, rows, scorer)
    # All before the first one is asked, which takes long.
    ready = [_prepare(step, plan, warns=step is steps[0]) for step in steps]
    if arguments.use_vllm:
        check_vllm([step.target for step in steps], arguments.device)
    return [_ask_one(step, plan, *own, tell) for step, own in zip(steps, ready, strict=True)]


@dataclass(frozen=True)
class _Plan:
    """What all models of one call share."""

    arguments: EvalArguments
    sampling: Sampling
    device: torch.device
    dtype: torch.dtype
    dataset: str
    options: dict[str, Any]
    template: dict[str, Any]
    rows: list[Row]
    scorer: Score

    def header(self, target: Target) -> Header:
        """What the records of a model begin with."""
        from ..evaluate.load import fingerprint
        from ..evaluate.records import Header
        from ..versions import software_versions

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
            }
            | ({"engine": "vllm"} if self.arguments.use_vllm else {}),
            seed=self.arguments.seed,
            versions=software_versions(),
        )


def _prepare(step: Step, plan: _Plan, warns: bool) -> tuple[Header, list[Prepared]]:
    """Header and questions of one model, checked against what its files hold."""
    from ..evaluate.ask import check_answered, prepare
    from ..evaluate.load import check_target, load_tokenizer
    from ..evaluate.records import is_begun, read_continued
    from ..evaluate.represent import find_kept
    from .eval_questions import cut_references

    arguments, new = plan.arguments, plan.sampling.max_new_tokens
    config, header = check_target(step.target), plan.header(step.target)
    tokenizer = load_tokenizer(step.target)
    if warns and (cut := cut_references(plan.rows, tokenizer, new)):
        print(f"poise eval: {cut}", file=sys.stderr)
    longest = getattr(config, "max_position_embeddings", None)
    room = None if longest is None else longest - new
    questions = prepare(plan.rows, tokenizer, room=room, template=plan.template)
    files = () if arguments.overwrite else step.files
    for file in filter(is_begun, files):
        check_answered(questions, read_continued(file, header).questions, file)
    if arguments.consistency:
        find_kept(config, questions, header, files, arguments.layer)
    return header, questions


def _ask_one(
    step: Step,
    plan: _Plan,
    header: Header,
    questions: list[Prepared],
    tell: Callable[[int, int], None] | None,
) -> Result:
    from ..evaluate import vllm
    from ..evaluate.ask import Draw, ask_questions, complete
    from ..evaluate.load import load
    from ..evaluate.records import RecordWriter, beside, read_records
    from ..evaluate.represent import kept_or_read
    from .quiet import hide_bars_of_files

    arguments = plan.arguments
    if arguments.overwrite:
        for file in step.files:
            file.unlink(missing_ok=True)
            beside(file).unlink(missing_ok=True)
    writer, *copies = [RecordWriter(file, header) for file in step.files]
    hide_bars_of_files(step.target.model)
    model, tokenizer = load(step.target, plan.dtype, plan.device)
    representations = None
    if arguments.consistency:
        reading = (header, step.files, arguments.layer, f"{step.name}: reading")
        representations = kept_or_read(model, tokenizer, questions, *reading)
    asked: Any = nullcontext(model)
    draw: Draw = complete
    if arguments.use_vllm:
        most = plan.sampling.max_new_tokens + max(len(question.tokens) for question in questions)
        asked = vllm.loaded(step.target, plan.dtype, most, model.generation_config)
        draw = vllm.complete
    del model  # its memory is vLLM's
    with asked as model:
        ask_questions(
            model,
            tokenizer,
            questions,
            writer,
            plan.scorer,
            plan.sampling,
            seed=arguments.seed,
            batch_size=arguments.batch_size,
            label=step.name,
            tell=tell,
            draw=draw,
        )
    for copy in copies:
        copy.write([record for id, record in writer.done.items() if id not in copy.done])
    return Result(step, read_records(writer.path), representations, arguments.center)
