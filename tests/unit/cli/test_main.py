"""The dispatcher: light, clear, and silent about nothing that is a bug."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
import types
from collections.abc import Callable

import pytest

import poise
from poise.cli.main import COMMANDS, main


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Replaces `poise report` by code, as if it were written in the package."""

    def install(body: str) -> None:
        module = types.ModuleType("poise.cli.report")
        code = "def main(argv):\n" + "".join(f"    {line}\n" for line in body.splitlines())
        exec(code, module.__dict__)
        monkeypatch.setitem(sys.modules, "poise.cli.report", module)

    return install


@pytest.mark.parametrize("flag", ["--help", "-h", "help"])
def test_help_names_every_command(flag: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([flag]) == 0
    printed = capsys.readouterr().out
    assert all(f"\n  {name} " in printed for name in COMMANDS)
    assert set(COMMANDS) == {"demo", "pgpo", "iga", "eval", "memory", "report", "isomers"}
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"poise {poise.__version__}\n"
    assert main([]) == 2
    assert "usage: poise COMMAND" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("word", "hint"), [("evla", "did you mean 'eval'?"), ("zzz", "expected one of demo, pgpo")]
)
def test_an_unknown_command_gets_a_hint(
    word: str, hint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([word]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"poise: unknown command {word!r}; {hint}")
    assert error.count("\n") == 1


def test_help_and_version_import_no_heavy_library() -> None:
    program = (
        "import sys; from poise.cli.main import main; main(['--help']); main(['--version']);"
        "heavy = {'torch', 'transformers', 'trl', 'matplotlib', 'scipy', 'numpy'};"
        "sys.exit(', '.join(heavy & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("words", "status"), [(["memory"], 2), (["memory", "pgpo", "--help-all"], 0)]
)
def test_the_page_of_memory_takes_no_torch(words: list[str], status: int) -> None:
    program = (
        "import sys; from poise.cli.main import main; status = main(sys.argv[1:]);"
        "assert not {'torch', 'trl'} & set(sys.modules); sys.exit(status)"
    )
    command = [sys.executable, "-c", program, *words]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (status, "")
    assert done.stdout.startswith("usage: poise memory pgpo|iga")


@pytest.mark.parametrize("command", ["pgpo", "iga"])
def test_help_names_each_argument_of_our_own_without_torch(command: str) -> None:
    """As the dataclasses have them, which the page cannot import."""
    program = (
        "import sys; from poise.cli.main import main; main(sys.argv[1:]);"
        "sys.exit(', '.join({'torch', 'transformers', 'trl'} & set(sys.modules)) or 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, command, "--help"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    module = importlib.import_module(f"poise.cli.{command}")
    script, config, *_ = module.make_parser().dataclass_types
    own = {*script.__dataclass_fields__, *config.__annotations__} - {"_VALID_DICT_FIELDS"}
    own -= set(getattr(module, "OLD_NAMES", ()))
    assert own >= {"dataset_name", "exact_resume"}
    named = set(re.findall(r"^  --(\w+)", done.stdout, re.MULTILINE))
    assert named >= own
    known = {
        flag.removeprefix("--") for a in module.make_parser()._actions for flag in a.option_strings
    }
    assert named - {"num_processes", "accelerate_config"} <= known
    assert f"poise {command} --help-all" in done.stdout


def test_help_all_is_trls_own(
    command: Callable[[str], None], capsys: pytest.CaptureFixture[str]
) -> None:
    command("print(argv)\nreturn 0")
    assert main(["report", "--help-all"]) == 0
    assert capsys.readouterr().out == "['--help']\n"


def test_poises_own_log_is_shown(
    command: Callable[[str], None], capsys: pytest.CaptureFixture[str]
) -> None:
    command("import logging\nlogging.getLogger('poise.report').info('it is said')\nreturn 0")
    for _ in range(2):
        main(["report"])
        assert capsys.readouterr().err == "it is said\n"


def test_a_command_gets_its_arguments_and_gives_the_exit_status(
    command: Callable[[str], None], capsys: pytest.CaptureFixture[str]
) -> None:
    command("print(argv)\nreturn 7")
    assert main(["report", "a", "--b"]) == 7
    assert capsys.readouterr().out == "['a', '--b']\n"


@pytest.mark.parametrize(
    "error",
    ["ValueError('bad\\n  input')", "ImportError('bad input')", "FileNotFoundError('bad input')"],
)
def test_our_errors_are_one_line_without_traceback(
    command: Callable[[str], None],
    capsys: pytest.CaptureFixture[str],
    error: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    command(f"raise {error}")
    assert main(["report"]) == 2
    assert capsys.readouterr().err == "poise report: bad input\n"
    monkeypatch.setenv("POISE_DEBUG", "1")
    with pytest.raises(Exception, match="bad"):
        main(["report"])
    monkeypatch.delenv("POISE_DEBUG")
    command("open('/none/such')")  # a file that the system refuses
    assert main(["report"]) == 2
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize(
    ("body", "error"),
    [
        ("import json\njson.loads('{')", ValueError),  # raised inside a library: a bug of ours
        ("raise KeyError('x')", KeyError),
        ("raise RuntimeError('x')", RuntimeError),
    ],
)
def test_a_bug_keeps_its_traceback(
    command: Callable[[str], None], body: str, error: type[Exception]
) -> None:
    command(body)
    with pytest.raises(error):
        main(["report"])


def test_an_interruption_is_no_traceback(
    command: Callable[[str], None], capsys: pytest.CaptureFixture[str]
) -> None:
    command("raise KeyboardInterrupt")
    assert main(["report"]) == 130
    assert "poise report: interrupted" in capsys.readouterr().err
