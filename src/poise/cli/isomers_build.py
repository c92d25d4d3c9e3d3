"""`poise isomers build`: a user's own problems, rewritten in several domains by a teacher."""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..isomers.build.build import Plan, Summary, beside, build
from .arguments import CommandParser, option

if TYPE_CHECKING:
    from ..isomers.build.teachers import Teacher

# Argument of a teacher -> its least value.
_LEAST = {"temperature": 0, "max_tokens": 1, "concurrency": 1, "retries": 0}


@dataclass
class BuildArguments:
    """What to rewrite, and by whom."""

    problems: str | None = option(
        None,
        "JSON lines with 'prompt' or 'question', 'answer', and where you have them 'id', "
        "'completion' or 'solution', 'domain', 'options'.",
    )
    output: str | None = option(
        None,
        "The .jsonl file of isomer sets. Beside it lie .journal.jsonl, from which an interrupted "
        "build goes on, and .rejects.jsonl, with the reasons.",
    )
    teacher: str | None = option(
        None,
        "Who rewrites: 'endpoint:MODEL' for an OpenAI-compatible endpoint, or 'local:MODEL' for a "
        "folder, a hub id or 'default'.",
    )
    base_url: str = option("https://api.openai.com/v1", "Address of the endpoint.")
    api_key_env: str = option(
        "OPENAI_API_KEY",
        "Environment variable with the endpoint's key, which is never written anywhere; '' for an "
        "endpoint that wants none.",
    )
    temperature: float | None = option(None, "Sampling temperature; None is the teacher's own.")
    max_tokens: int | None = option(
        None, "Longest reply; None is the endpoint's own, and 1024 of a local model."
    )
    concurrency: int = option(4, "Problems under way at a time; batch size of a local model.")
    timeout: float | None = option(120.0, "Seconds to wait for a reply of the endpoint.")
    retries: int = option(6, "Further attempts of a request that failed, with growing waits.")
    device: str | None = option(None, "Device of a local model. By default an accelerator if any.")
    overwrite: bool = option(False, "Start anew instead of going on with a journal.")

    def __post_init__(self) -> None:
        for name, least in _LEAST.items():
            value = getattr(self, name)
            if value is not None and not least <= value < math.inf:
                raise ValueError(f"{name}: expected {least} or more, found {value!r}")
        if self.timeout is not None and not 0 < self.timeout < math.inf:
            raise ValueError(f"timeout: expected a number above 0, found {self.timeout!r}")


def main(argv: list[str]) -> int:
    """Check everything, ask what is missing, write the files; returns the exit status.

    Raises:
        ValueError, FileNotFoundError: a setting, a row or a journal is not what was expected;
            nothing has been asked.
        TeacherError: the teacher cannot be asked; what is finished is in the journal.
    """
    from ..isomers.build.problems import read_problems

    parser = CommandParser(
        (BuildArguments, Plan),
        prog="poise isomers build",
        description="Have a teacher rewrite your problems in several domains. A version is kept "
        "only if answer, quantities and relations survive and no two domains share their wording. "
        "An interrupted build goes on when the same command is run again.",
    )
    arguments, plan = parser.parse_args_and_config(argv)
    source, output = _files(arguments)
    problems = read_problems(source)
    teacher = _make_teacher(arguments)
    if arguments.overwrite:
        beside(output, "journal").unlink(missing_ok=True)
    try:
        summary = build(problems, plan, teacher, output)
    except KeyboardInterrupt:
        print("\nFinished versions are kept; the same command goes on.", file=sys.stderr)
        raise
    return _show(summary, plan, output)


def _files(arguments: BuildArguments) -> tuple[Path, Path]:
    """The problems, and the output."""
    for name in ("problems", "output"):
        if getattr(arguments, name) is None:
            raise ValueError(f"{name}: expected a .jsonl file, found none; give it with --{name}")
    source, output = Path(str(arguments.problems)), Path(str(arguments.output))
    if output.suffix != ".jsonl" or output.is_dir():
        raise ValueError(f"output: expected a .jsonl file, found {output}")
    if source.resolve() == output.resolve():
        raise ValueError(f"output: expected another file than the problems', found {output} twice")
    if output.exists() and not beside(output, "journal").exists() and not arguments.overwrite:
        raise ValueError(
            f"output: expected a new file or one with its journal, found {output} alone; give "
            "another, or replace it (--overwrite)"
        )
    return source, output


def _make_teacher(arguments: BuildArguments) -> Teacher:
    # Imported late, so that --help needs no HTTP library.
    from ..isomers.build.teachers import EndpointTeacher, LocalTeacher, read_key
    from ..models import resolve_model

    kind, _, model = (arguments.teacher or "").partition(":")
    shared = {n: getattr(arguments, n) for n in ("temperature", "max_tokens", "concurrency")}
    if kind == "local":
        name = f"local:{model or 'default'}"
        return LocalTeacher(resolve_model(model or None), name, arguments.device, **shared)
    if kind == "endpoint" and model:
        key = read_key(arguments.api_key_env)
        return EndpointTeacher(
            model, arguments.base_url, key, arguments.timeout, arguments.retries, **shared
        )
    raise ValueError(
        "teacher: expected 'endpoint:MODEL' or 'local:MODEL', found "
        f"{arguments.teacher!r}; for example --teacher local:default"
    )


def _show(summary: Summary, plan: Plan, output: Path) -> int:
    """Print what came of the build; returns the exit status."""
    rejects = beside(output, "rejects")
    print(f"{summary.sets} sets of {summary.problems} problems")
    for domain in plan.domains:
        kept, rejected = summary.kept[domain], summary.rejected[domain]
        print(f"  {domain}: {kept} kept, {rejected} rejected")
    if summary.sets:
        print(f"Isomer sets written to {output}")
    print(f"Rejects with their reasons in {rejects}")
    if not summary.sets:
        print(
            "poise isomers: expected at least one set that survives in enough domains, found none; "
            f"the reasons are in {rejects}",
            file=sys.stderr,
        )
    return 0 if summary.sets else 2
