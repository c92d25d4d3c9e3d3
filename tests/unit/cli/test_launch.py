"""Several processes: as many as are asked for, or a clear error."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from accelerate.commands import launch as accelerates

from poise.cli import launch, pgpo

FSDP2 = """
compute_environment: LOCAL_MACHINE
distributed_type: FSDP
mixed_precision: bf16
fsdp_config: {fsdp_version: 2, fsdp_state_dict_type: SHARDED_STATE_DICT}
num_machines: 1
num_processes: 8
use_cpu: false
"""
ZERO3 = FSDP2.replace("FSDP", "DEEPSPEED", 1).replace(
    "fsdp_config: {fsdp_version: 2, fsdp_state_dict_type: SHARDED_STATE_DICT}",
    "deepspeed_config: {zero_stage: 3, offload_param_device: cpu}",
)


@pytest.fixture
def launched(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What accelerate's launcher would get."""
    found: list[Any] = []
    monkeypatch.setattr(launch, "launch_command", found.append)
    return found


def test_two_processes_are_started_on_the_cpu(tmp_path: Path) -> None:
    flags = ["--num_processes", "2", "--main_process_port", "0"]
    assert launch.launch("tests.unit.cli.rank_worker", flags, [str(tmp_path)], is_on_cpu=True) == 0
    left = {path.name: path.read_text() for path in tmp_path.iterdir()}
    assert left == {"0": "2 --use_cpu true", "1": "2 --use_cpu true"}


def test_accelerates_own_flag_for_cpus_starts_several_too(launched: list[Any]) -> None:
    assert launch.launch("m", ["--cpu", "--num_processes", "3"], []) == 0
    assert (launched[0].multi_gpu, launched[0].cpu) == (True, False)
    assert launched[0].training_script_args == ["--use_cpu", "true"]


@pytest.mark.parametrize(
    ("kind", "on_cpu"),
    [("NO", "true"), ("NO", "false"), ("MULTI_CPU", "true"), ("MULTI_GPU", "false")],
)
def test_a_file_never_starts_fewer_than_are_asked_for(
    kind: str, on_cpu: str, launched: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.accelerator, "device_count", lambda: 8)
    text = f"compute_environment: LOCAL_MACHINE\ndistributed_type: '{kind}'\nuse_cpu: {on_cpu}\n"
    words = ["--config_file", config(tmp_path, text), "--num_processes", "4"]
    assert launch.launch("m", words, []) == 0
    assert (launched[0].multi_gpu, launched[0].cpu) == (True, False)
    assert launched[0].training_script_args == ["--use_cpu", "true"] * (on_cpu == "true")


def test_one_process_is_left_alone(launched: list[Any]) -> None:
    assert launch.launch("m", ["--num_processes", "1"], ["--seed", "1"], is_on_cpu=True) == 0
    assert not launched[0].multi_gpu
    assert launched[0].training_script_args == ["--seed", "1"]


def test_more_processes_than_accelerators_are_refused(
    launched: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.accelerator, "device_count", lambda: 2)
    with pytest.raises(ValueError, match=r"--num_processes: expected at most 2.*found 3"):
        launch.launch("m", ["--num_processes", "3"], [])
    assert launch.launch("m", ["--num_processes", "2"], []) == 0
    assert launch.launch("m", ["--num_processes", "4", "--num_machines", "2"], []) == 0
    assert len(launched) == 2


@pytest.fixture
def gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """Eight, and DeepSpeed."""
    monkeypatch.setattr(torch.accelerator, "device_count", lambda: 8)
    monkeypatch.setattr(launch, "find_spec", lambda name: name)


def config(tmp_path: Path, text: str) -> str:
    file = tmp_path / "engine.yaml"
    file.write_text(text)
    return str(file)


def merged(arguments: Any) -> Any:
    """Accelerate's own view of them, its file put in."""
    return accelerates._validate_launch_command(arguments)[0]


@pytest.mark.usefixtures("gpus")
@pytest.mark.parametrize("form", ["--accelerate_config {}", "--accelerate_config={}"])
def test_a_configuration_and_flags_above_it_reach_accelerate(
    form: str, launched: list[Any], tmp_path: Path
) -> None:
    words = form.format(config(tmp_path, FSDP2)).split()
    assert launch.launch("m", [*words, "--num_processes", "4"], ["--seed", "1"]) == 0
    arguments = merged(launched[0])
    assert arguments.use_fsdp and str(arguments.fsdp_version) == "2"
    assert arguments.fsdp_state_dict_type == "SHARDED_STATE_DICT"
    assert (arguments.num_processes, arguments.mixed_precision) == (4, "bf16")
    assert (arguments.training_script, arguments.training_script_args) == ("m", ["--seed", "1"])


@pytest.mark.usefixtures("gpus")
@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (["--use_fsdp", "--fsdp_version", "2"], ("fsdp2", None, False)),
        (["--use_deepspeed", "--num_processes", "8"], ("zero2", 8, False)),
        (["--use_deepspeed", "--zero_stage", "1"], ("zero1", None, False)),
        (["--config_file", "FILE"], ("zero3", 8, True)),
        (["--config_file", "FILE", "--zero_stage", "2"], ("zero2", 8, True)),
        (["--config_file", "FILE", "--offload_param_device", "none"], ("zero3", 8, False)),
        (["--config_file", "FILE", "--multi_gpu"], ("ddp", 8, False)),
    ],
)
def test_flags_win_over_the_file(
    flags: list[str], expected: tuple[Any, ...], launched: list[Any], tmp_path: Path
) -> None:
    file = config(tmp_path, ZERO3)
    words = [file if word == "FILE" else word for word in flags]
    asked = launch.engine_of(launch.parse_flags([*words, "--module", "m"]))
    assert (asked.kind, asked.processes, asked.offloads) == expected
    if asked.processes:
        assert launch.launch("m", words, []) == 0
        arguments = merged(launched[0])
        assert arguments.use_deepspeed == asked.kind.startswith("zero")
        if arguments.use_deepspeed:
            assert f"zero{arguments.zero_stage or 2}" == asked.kind


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--use_fsdp", "--fsdp_version", "2"], "fsdp2: expected accelerators, found the CPU"),
        (["--use_deepspeed"], "zero2: expected accelerators, found the CPU"),
        (["--config_file", "FILE"], "fsdp2: expected accelerators, found the CPU"),
        (["--config_file", "FILE", "--cpu"], "fsdp2: expected accelerators, found the CPU"),
        (["--use_fsdp"], "fsdp_version: expected 2, found 1"),
        (["--num_processes", "3", "--num_machines", "2"], "a multiple of --num_machines 2"),
        (["--num_processes", "0"], "expected at least 1, found 0"),
        (["--num_processes", "two"], "invalid int value: 'two'"),
        (["--config_file", "nowhere.yaml"], "nowhere.yaml: expected a configuration"),
        (["--accelerate_config", "nothing"], "nothing is neither a file nor a valid config"),
    ],
)
def test_what_cannot_be_started_says_why(
    flags: list[str], message: str, launched: list[Any], tmp_path: Path
) -> None:
    words = [config(tmp_path, FSDP2) if word == "FILE" else word for word in flags]
    with pytest.raises(ValueError, match=message):
        launch.launch("m", words, [], is_on_cpu=True)
    assert launched == []


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (FSDP2.replace("fsdp_state_dict_type", "fsdp_state_dict_typ"), "did you mean 'fsdp_state"),
        (ZERO3.replace("zero_stage", "zero_stag"), "deepspeed_config has an unknown key"),
        (FSDP2.replace("num_machines", "machines"), "unknown keys"),
        (FSDP2.replace("FSDP", "FSDP3", 1), "expected a configuration"),
        (FSDP2.replace(": 1", ": [", 1), "expected a configuration"),
        ("- a list", "expected a configuration"),
    ],
)
def test_a_wrong_configuration_is_refused(wrong: str, message: str, tmp_path: Path) -> None:
    flags = launch.parse_flags(["--config_file", config(tmp_path, wrong), "--module", "m"])
    with pytest.raises(ValueError, match=message):
        launch.engine_of(flags)


@pytest.mark.usefixtures("launched")
def test_a_missing_deepspeed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.accelerator, "device_count", lambda: 8)
    monkeypatch.setattr(launch, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match="deepspeed is not installed; run pip install deepspeed"):
        launch.launch("m", ["--use_deepspeed"], [])


def test_a_flag_of_neither_is_refused() -> None:
    with pytest.raises(ValueError, match="--fsdp_versionn"):
        launch.parse(pgpo.make_parser(), ["--use_cpu", "true", "--fsdp_versionn", "2"])


@pytest.mark.parametrize("words", [["a.py"], ["a.py", "--num_processes", "2"], ["--cpu", "a.py"]])
def test_a_word_too_many_is_not_run_in_the_commands_place(words: list[str]) -> None:
    with pytest.raises(ValueError, match=r"unknown argument 'a.py'; see poise pgpo --help"):
        launch.parse(pgpo.make_parser(), ["--use_cpu", "true", *words])


def test_a_rank_that_ends_takes_the_others_down() -> None:
    flags = ["--num_processes", "2", "--main_process_port", "0"]
    with pytest.raises(launch.RankFailedError) as raised:
        launch.launch("tests.unit.cli.failing_rank", flags, [], is_on_cpu=True)
    assert str(raised.value) == "rank 1 was killed by SIGKILL (memory may have run out)"


@pytest.mark.parametrize(
    ("ends", "named"),
    [
        ({1: 1, 0: -15}, "rank 1 ended with status 1, its own message is above,"),
        ({0: launch.LOST_RANK, 1: 1}, "rank 1 ended with status 1, its own message is above,"),
        ({1: launch.LOST_RANK, 0: -15}, "a rank ended, whose own message is above,"),
        ({1: launch.USERS_MISTAKE, 0: -15}, None),  # a rank has said it
    ],
)
def test_the_rank_that_ended_first_by_itself_is_named(
    ends: dict[int, int], named: str | None
) -> None:
    """Ranks with their exit codes, in the order of their ends."""
    failures = {
        rank: SimpleNamespace(exitcode=code, timestamp=time)
        for time, (rank, code) in enumerate(ends.items())
    }
    error: Any = SimpleNamespace(failures=failures)
    if named is None:
        assert launch._what_ended(error) == 2
        return
    with pytest.raises(launch.RankFailedError) as raised:
        launch._what_ended(error)
    assert str(raised.value) == named
