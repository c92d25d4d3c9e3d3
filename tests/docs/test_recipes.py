"""Every file of examples/ is read by what reads it in a run, and starts as far as a CPU goes."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import yaml
from accelerate.commands.config.config_args import load_config_from_file
from accelerate.commands.launch import _validate_launch_command
from accelerate.utils.launch import prepare_deepspeed_cmd_env, prepare_multi_gpu_env

from poise.cli import iga, launch, pgpo
from tests.grids import grid
from tests.processes import run_ranks

from .recipe_worker import start

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
ENGINES = {"ddp": "ddp", "fsdp2": "fsdp2", "zero2": "zero2", "zero3": "zero3"}
RUNS = sorted(EXAMPLES.glob("pgpo_*.yaml"))
# Commands in the comments of examples, over several lines where one ends in a backslash.
COMMAND = re.compile(r"^#\s+poise (pgpo|iga|memory) ((?:.*\\\n#)*.*)$", re.MULTILINE)


def engine_file(name: str) -> str:
    return str(EXAMPLES / "engines" / f"{name}.yaml")


def commands() -> list[tuple[str, str, list[str]]]:
    files = [*EXAMPLES.glob("*.yaml"), *EXAMPLES.glob("engines/*.yaml")]
    return [
        (file.name, match[1], shlex.split(match[2].replace("\\\n#", " ").replace("...", "")))
        for file in sorted(files)
        for match in COMMAND.finditer(file.read_text())
    ]


def test_all_engines_are_there() -> None:
    assert {path.stem for path in (EXAMPLES / "engines").iterdir()} == set(ENGINES)
    assert len(commands()) >= 7


@pytest.mark.parametrize("name", ENGINES)
def test_accelerates_loader_reads_it(name: str) -> None:
    flags = launch.parse_flags(["--config_file", engine_file(name), "--module", "m"])
    assert launch.engine_of(flags) == launch.Engine(ENGINES[name], processes=8)
    assert flags.mixed_precision is None  # the file's, which is checked where it runs


@pytest.mark.parametrize("file", RUNS, ids=lambda file: file.stem)
def test_the_trainers_configuration_reads_it(file: Path, tmp_path: Path) -> None:
    argv = ["--config", str(file), "--use_cpu", "true", "--output_dir", str(tmp_path)]
    (_, config, _), flags = launch.parse(pgpo.make_parser(), argv)
    assert flags == []
    assert config.output_dir == str(tmp_path)


@pytest.mark.parametrize(("place", "command", "words"), commands())
def test_the_commands_in_comments_parse(
    place: str, command: str, words: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(ROOT)
    command, *words = words if command == "memory" else [command, *words]
    parser = pgpo.make_parser() if command == "pgpo" else iga.make_parser(words)
    words += ["--use_cpu", "true", "--output_dir", str(tmp_path)]
    _, flags = launch.parse(parser, words)
    launch.engine_of(launch.parse_flags([*flags, "--module", "m"]))


def test_the_papers_step_has_its_samples(tmp_path: Path) -> None:
    argv = ["--config", str(EXAMPLES / "pgpo_paper.yaml"), "--use_cpu", "true"]
    (_, config, _), _ = launch.parse(pgpo.make_parser(), [*argv, "--output_dir", str(tmp_path)])
    rows = config.per_device_train_batch_size * config.gradient_accumulation_steps
    assert rows * 8 == 256 == 32 * config.num_generations


def environment(name: str) -> dict[str, str]:
    """What the launcher of two processes adds to the environment."""
    words = [
        "--config_file",
        engine_file(name),
        "--num_processes",
        "2",
        "--main_process_port",
        "0",
        "--module",
        "m",
    ]
    arguments, *_ = _validate_launch_command(launch.parse_flags(words))
    if arguments.use_deepspeed:
        fields = load_config_from_file(engine_file(name)).deepspeed_config
        arguments.deepspeed_fields_from_accelerate_config = ",".join(fields)  # as launch_command
        _, made = prepare_deepspeed_cmd_env(arguments)
    else:
        made = prepare_multi_gpu_env(arguments)
    return {key: value for key, value in made.items() if os.environ.get(key) != value}


@pytest.mark.parametrize("name", grid(["ddp", "fsdp2"], ["fsdp2"]))
def test_two_ranks_start(name: str, tiny_model_path: str, tmp_path: Path) -> None:
    run_ranks(2, start, environment(name), tiny_model_path, tmp_path)
    for rank in "01":
        found = json.loads((tmp_path / f"{rank}.json").read_text())
        assert found["processes"] == 2 and found["is_finite"]
        assert found["precision"] == "bf16" and found["weights"] == ["torch.float32"]
        assert found["is_sharded"] == (name == "fsdp2")
    if name == "fsdp2":
        assert found["type"] == "FSDP"
        assert found["plugin"] == {
            "fsdp_version": 2,
            "reshard_after_forward": True,
            "cpu_ram_efficient_loading": False,
        }
    assert (tmp_path / "last" / "model.safetensors").is_file()  # a whole model is left


@pytest.mark.slow
@pytest.mark.skipif(
    find_spec("deepspeed") is None, reason="needs DeepSpeed: `uvx nox -s deepspeed`"
)
@pytest.mark.parametrize("bf16", [False, True])
@pytest.mark.parametrize("name", ["zero2", "zero3"])
def test_zero_starts_and_goes_on(
    name: str, bf16: bool, tiny_model_path: str, tmp_path: Path
) -> None:
    """The flags are those of the command in the file's comment."""
    (words,) = [words for place, _, words in commands() if place == f"{name}.yaml"]
    flags = dict(zip(words[::2], words[1::2], strict=True))
    settings = {
        key.removeprefix("--"): yaml.safe_load(value)
        for key, value in flags.items()
        if key not in ("--accelerate_config", "--num_processes")
    }
    settings |= {"bf16": bf16, "save_strategy": "steps", "save_steps": 1}
    for resume in (None, True):
        steps = settings | {"max_steps": 2 if resume else 1}
        run_ranks(2, start, environment(name), tiny_model_path, tmp_path, resume, steps)
        for rank in "01":
            found = json.loads((tmp_path / f"{rank}.json").read_text())
            assert found["type"] == "DEEPSPEED" and found["processes"] == 2 and found["is_finite"]
            assert found["precision"] == ("bf16" if bf16 else "no")
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    assert [line["step"] for line in map(json.loads, lines) if "loss" in line] == [1, 2]
    assert (tmp_path / "last" / "model.safetensors").is_file()


RUN_FLAGS = {
    "style": "plain",
    "count": 12,
    "max_steps": 1,
    "per_device_train_batch_size": 4,
    "num_generations": 4,
    "max_prompt_length": 40,
    "max_completion_length": 4,
    "save_strategy": "no",
    "bf16": "false",
    "use_cpu": "true",
    "report_to": "none",
    "dataset_name": "facts",
}


@pytest.mark.slow
def test_two_nodes_start_under_slurm(tiny_model_path: str, tmp_path: Path) -> None:
    """Two launchers, of a process each, on this machine; `srun` starts one for each node."""
    tools = tmp_path / "bin"
    tools.mkdir()
    scripts = {
        "poise": f'exec {sys.executable} -m poise.cli.main "$@"',
        "scontrol": "echo localhost; echo other",
        "srun": 'shift; SLURM_NODEID=0 "$@" & first=$!; SLURM_NODEID=1 "$@" || exit 1; wait $first',
    }
    for name, line in scripts.items():
        (tools / name).write_text(f"#!/bin/bash\n{line}\n")
        (tools / name).chmod(0o755)
    environment = os.environ | {
        "PATH": f"{tools}:{os.environ['PATH']}",
        "ENGINE": engine_file("ddp"),
        "SLURM_JOB_NODELIST": "any",
        "SLURM_JOB_ID": str(os.getpid()),
        "SLURM_NNODES": "2",
        "SLURM_GPUS_ON_NODE": "1",
    }
    flags: dict[str, Any] = RUN_FLAGS | {"output_dir": tmp_path / "run"}
    flags["model_name_or_path"] = tiny_model_path
    words = [f"--{name}={value}" for name, value in flags.items()]
    done = subprocess.run(
        [shutil.which("bash") or "bash", str(EXAMPLES / "slurm.sh"), "pgpo", *words],
        env=environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    assert (tmp_path / "run" / "model.safetensors").is_file()
    log = [json.loads(x) for x in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert log[-1]["step"] == 1


def test_slurms_script_hands_over_what_a_launcher_needs() -> None:
    text = (EXAMPLES / "slurm.sh").read_text()
    flags = set(re.findall(r"--\w+", text.partition("srun")[2])) - {"--kill"}
    known = {o for a in launch.launch_command_parser()._actions for o in a.option_strings}
    assert flags <= known | {"--accelerate_config"}
    assert subprocess.run(["bash", "-n", str(EXAMPLES / "slurm.sh")]).returncode == 0
