"""`poise`: finds the command, runs it, and turns a user's mistake into one line.

A command's module is imported only when it is called, so that `poise --help` is quick.
"""

from __future__ import annotations

import difflib
import importlib
import os
import subprocess
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from .. import __version__
from ..extras import what_to_install
from ..threads import use_free_cores
from . import help
from .quiet import be_quiet

# Command -> what it does, and "module:function" that runs it: argv -> exit status.
Commands = Mapping[str, tuple[str, str]]
COMMANDS = {
    "demo": ("train and evaluate a small model here, in minutes", "poise.demo.command:main"),
    "pgpo": ("train a model by physics-guided policy optimization", "poise.cli.pgpo:main"),
    "iga": ("train a model by invariant gradient alignment on isomers", "poise.cli.iga:main"),
    "eval": ("measure accuracy with intervals, before and after training", "poise.cli.eval:main"),
    "memory": ("count what a training run will need on each GPU", "poise.cli.memory:main"),
    "report": ("write one HTML page about training runs", "poise.cli.report:main"),
    "isomers": ("generate, build, validate and show logical isomer sets", "poise.cli.isomers:main"),
}
_OLD = {"bench": ("experiments, now `python -m lab`", "poise.cli.main:bench")}
_TRAIN_OR_ASK = ("demo", "pgpo", "iga", "eval")
_OURS = ("poise", "lab")


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line; returns the exit status: 0, 2 after a user's mistake, another after what
    may go right the next time."""
    words = list(sys.argv[1:] if argv is None else argv)
    if words[:1] in (["-V"], ["--version"]):
        print(f"poise {__version__}")
        return 0
    name = words[0] if words and words[0] in COMMANDS | _OLD else ""
    asks = {"-h", "--help", "--help-all"} if name == "memory" else {"-h", "--help"}
    if words == ["memory"] or (name in help.PAGES and not asks.isdisjoint(words)):
        print(help.page(name))
        return 0 if asks.intersection(words) else 2
    if name in _TRAIN_OR_ASK:
        use_free_cores()  # before torch is loaded
    if name:
        words = ["--help" if word == "--help-all" else word for word in words]
    about = f"Poise {__version__}: stable and robust post-training of language models."
    commands = COMMANDS | (_OLD if name in _OLD else {})
    command = f"poise {name}".rstrip()
    return guard(command, lambda: dispatch(words, commands, "poise", about, "command"))


def bench(argv: list[str]) -> int:
    """For one release, the old name of `python -m lab`, which runs where the folder `lab` is."""
    print(
        f"poise bench: use `{' '.join(['python -m lab', *argv])}` in the repository's root",
        file=sys.stderr,
    )
    if not Path("lab", "__main__.py").is_file():
        return 2
    return subprocess.call([sys.executable, "-m", "lab", *argv])


def dispatch(
    argv: list[str], commands: Commands, prog: str, about: str, kind: str = "subcommand"
) -> int:
    """Run the command that the first word names; returns its exit status, 2 without a word.

    `prog` is typed before a command, `about` is what `--help` says before it lists the commands,
    and `kind` what it calls them.

    Raises:
        ValueError: there is no such command.
    """
    if not argv or argv[0] in ("-h", "--help", "help"):
        lines = "\n".join(f"  {name:<10}{text}" for name, (text, _) in commands.items())
        print(
            f"usage: {prog} {kind.upper()} [--flags] [--config FILE.yaml]\n\n{about}\n\n"
            f"{kind}s:\n{lines}\n\n"
            f"`{prog} {kind.upper()} --help` lists the flags, which a YAML file may hold too.",
            file=sys.stdout if argv else sys.stderr,
        )
        return 0 if argv else 2
    name, *rest = argv
    if name not in commands:
        near = difflib.get_close_matches(name, commands, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"expected one of {', '.join(commands)}"
        raise ValueError(f"unknown {kind} {name!r}; {hint}")
    module, _, function = commands[name][1].partition(":")
    status: int = getattr(importlib.import_module(module), function)(rest)
    return status


def guard(command: str, run: Callable[[], int]) -> int:
    """Run a command; a user's mistake becomes one line and the exit status 2, the end of another
    rank another status, and no line where a launcher names that rank. With `POISE_DEBUG` in the
    environment an error keeps its traceback."""
    be_quiet()
    try:
        return run()
    except KeyboardInterrupt:
        print(f"\n{command}: interrupted", file=sys.stderr)
        return 130
    except Exception as error:
        advice = what_to_install(error)
        if os.environ.get("POISE_DEBUG") or not (advice or _is_users_error(error)):
            raise
        status: int = getattr(error, "exit_status", 2)
        if status == 2 or "TORCHELASTIC_RUN_ID" not in os.environ:
            print(f"{command}: {advice or ' '.join(str(error).split())}", file=sys.stderr)
        return status


def _is_users_error(error: BaseException) -> bool:
    """Whether the message alone tells the user what to do: what Poise itself raises, what is wrong
    with the command line or its configuration file, a file that the system refuses. Anything else
    is a bug, and its traceback is wanted."""
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    if any(frame.f_code.co_name == "parse_args_and_config" for frame in frames):
        return True
    if isinstance(error, OSError) and error.filename is not None:
        return True
    raised_in = frames[-1].f_globals.get("__name__", "") if frames else ""
    ours = raised_in.partition(".")[0] in (*_OURS, "__main__")
    # TypeError and RuntimeError may be bugs; those of our own classes are not.
    is_own_class = type(error).__module__.partition(".")[0] in _OURS
    return ours and (is_own_class or isinstance(error, ValueError | OSError | ImportError))


if __name__ == "__main__":
    sys.exit(main())
