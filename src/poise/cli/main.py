"""`poise`: finds the command, runs it, and turns a user's mistake into one line.

A command's module is imported only when it is called, so that `poise --help` is quick.
"""

from __future__ import annotations

import difflib
import importlib
import os
import sys
import traceback
from collections.abc import Callable, Sequence

from .. import __version__
from ..extras import what_to_install
from ..threads import use_free_cores
from . import help
from .quiet import be_quiet

# Command -> what it does. Its module, most often `poise.cli.<command>`, has `main(argv) -> int`.
COMMANDS = {
    "demo": "train and evaluate a small model on this machine, in minutes",
    "pgpo": "train a model by physics-guided policy optimization",
    "iga": "train a model by invariant gradient alignment on logical isomers",
    "eval": "measure a model's accuracy with intervals, before and after training",
    "report": "write one HTML page about training runs",
    "isomers": "generate, build, validate and show logical isomer sets",
}
TRAINS_OR_ASKS = ("demo", "pgpo", "iga", "eval")
OURS = ("poise", "lab")
DEBUG = "POISE_DEBUG"


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line; returns the exit status: 0, or 2 after a user's mistake."""
    words = list(sys.argv[1:] if argv is None else argv)
    if not words:
        print(usage(), file=sys.stderr)
        return 2
    name, *rest = words
    if name in ("-h", "--help", "help"):
        print(usage())
        return 0
    if name in ("-V", "--version"):
        print(f"poise {__version__}")
        return 0
    if name not in (*COMMANDS, "bench"):  # an old name; see `cli.bench`
        near = difflib.get_close_matches(name, COMMANDS, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"expected one of {', '.join(COMMANDS)}"
        print(f"poise: unknown command {name!r}; {hint}", file=sys.stderr)
        return 2
    return _run(name, rest)


def usage() -> str:
    """What `poise --help` prints."""
    commands = "\n".join(f"  {name:<8}{text}" for name, text in COMMANDS.items())
    return (
        f"usage: poise COMMAND [--flags] [--config FILE.yaml]\n\n"
        f"Stable and robust post-training of language models.\n\ncommands:\n{commands}\n\n"
        f"`poise COMMAND --help` lists the flags of a command, which a YAML file may hold too.\n"
        f"`poise --version` prints the version."
    )


def _run(name: str, argv: list[str]) -> int:
    if name in help.PAGES and not {"-h", "--help"}.isdisjoint(argv):
        print(help.page(name))
        return 0
    argv = ["--help" if word == "--help-all" else word for word in argv]
    if name in TRAINS_OR_ASKS:
        use_free_cores()  # before torch is loaded
    module = "poise.demo.command" if name == "demo" else f"poise.cli.{name}"
    return guard(f"poise {name}", lambda: importlib.import_module(module).main(argv))


def guard(command: str, run: Callable[[], int]) -> int:
    """Run a command; a user's mistake becomes one line and the exit status 2."""
    be_quiet()
    try:
        return run()
    except KeyboardInterrupt:
        print(f"\n{command}: interrupted", file=sys.stderr)
        return 130
    except Exception as error:
        advice = what_to_install(error)
        if os.environ.get(DEBUG) or not (advice or is_users_error(error)):
            raise
        print(f"{command}: {advice or ' '.join(str(error).split())}", file=sys.stderr)
        return 2


def is_users_error(error: BaseException) -> bool:
    """Whether the message alone tells the user what to do, so that a traceback would only hide it.

    That is so for what Poise itself raises as ValueError, FileNotFoundError or ImportError, for
    everything that is wrong with the command line or its configuration file, and for a file that
    the system refuses. Anything else is a bug, and its traceback is wanted.
    """
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    if any(frame.f_code.co_name == "parse_args_and_config" for frame in frames):
        return True
    if isinstance(error, OSError) and error.filename is not None:
        return True
    raised_in = frames[-1].f_globals.get("__name__", "") if frames else ""
    ours = raised_in.partition(".")[0] in (*OURS, "__main__")
    # TypeError and RuntimeError may be bugs; those of our own classes are not.
    is_own_class = type(error).__module__.partition(".")[0] in OURS
    return ours and (is_own_class or isinstance(error, ValueError | OSError | ImportError))


if __name__ == "__main__":
    sys.exit(main())
