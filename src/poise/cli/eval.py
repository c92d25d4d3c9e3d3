"""`poise eval`: measures a model's accuracy, and that of others beside it.

Asking is imported when it is called, so that `--help` is quick.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

from .arguments import CommandParser, option


@dataclass
class EvalArguments:
    """Whom to ask, what, and how. Settings without a default of their own are taken from the
    compared run, where there is one."""

    model: str | None = option(
        None,
        "A local folder, a hub id, or 'default' for the embedded model. By default the one that "
        "was trained in --adapter or --compare.",
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
    count: int | None = option(None, "How many questions; by default 200 generated ones, or all.")
    style: str | None = option(None, "Form of generated prompts: 'chat', 'plain' or 'short'.")
    question_seed: int | None = option(None, "Seed of generated questions.")
    limit: int | None = option(None, "Ask so many questions at most, spread over the data set.")
    tests: list[str] | None = option(
        None, "Tests of isomers to ask, e.g. in_distribution reversed; by default all."
    )
    depths: list[int] | None = option(
        None, "Reasoning steps of generated isomers. By default those of the compared run."
    )
    domains: list[str] | None = option(
        None,
        "Domains of training, of generated isomers; the test of unseen domains asks the others. By "
        "default those of the compared run.",
    )
    cue_strength: float | None = option(
        None,
        "How often the surface cue of generated isomers is right in training; without it, its "
        "tests are left out. By default that of the compared run.",
    )
    consistency: bool = option(
        True, "Read models' representations of isomers, for the Logical Consistency Score."
    )
    layer: int | None = option(
        None, "Layer of these, 0 is the embeddings; by default two thirds of the way up."
    )
    k: int = option(16, "Samples per question.")
    temperature: float = option(0.6, "Sampling temperature; 0 is greedy, with one sample.")
    top_p: float = option(0.95, "Least mass of the likeliest tokens to draw from.")
    max_new_tokens: int = option(512, "Longest completion in tokens.")
    stop: list[str] = option(
        [], "Texts before which a completion is cut: --stop '\\n' for answers of one line."
    )
    thinking: bool | None = option(
        None,
        "Whether models think whose chat template has a switch for it; without a run they do not.",
        nargs="?",
        const=True,
    )
    seed: int = option(0, "Seed of the samples.")
    batch_size: int = option(
        64, "Most completions in flight, on which samples depend. Take hundreds with vLLM."
    )
    use_vllm: bool = option(
        False,
        'Ask through vLLM (pip install "poise[vllm]"), several times faster. Greedy answers are '
        "the same but for rounding, samples are others.",
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
    from .eval_asking import ask_all, make_steps
    from .eval_tables import figures_of, show_tables

    results = ask_all(make_steps(arguments), arguments)
    if arguments.json:
        print(json.dumps(figures_of(results), ensure_ascii=False, default=asdict))
    else:
        show_tables(results)
    return 0
