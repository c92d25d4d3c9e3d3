"""What the training commands share."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from poise import precision
from poise.cli import pgpo
from poise.cli.training import add_model_arguments
from poise.trl.logs import changed_settings, write_run_description


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ([], "float32"),
        (["--use_peft"], "bfloat16"),
        (["--use_peft", "--bf16", "false"], "float32"),
        (["--use_peft", "--dtype", "float32"], "float32"),
        (["--dtype", "bfloat16"], "bfloat16"),
    ],
)
def test_a_model_is_loaded_in_what_the_machine_is_quick_in(
    flags: list[str], expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Here one that is quick in bfloat16; what is trained is in float32 all the same."""
    monkeypatch.setattr(precision, "has_fast_bfloat16", lambda device: True)
    parser = pgpo.make_parser()
    _, config, model = parser.parse_args_and_config(
        ["--use_cpu", "true", "--output_dir", str(tmp_path), *flags]
    )
    add_model_arguments(config, model)
    assert config.model_init_kwargs["dtype"] == model.dtype == expected


@pytest.mark.parametrize("began_quick", [True, False])
def test_a_run_goes_on_in_its_precision_on_another_machine(
    began_quick: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def arguments(is_quick: bool, *flags: str) -> dict[str, Any]:
        monkeypatch.setattr(precision, "has_fast_bfloat16", lambda device: is_quick)
        words = ["--use_cpu", "true", "--use_peft", "--output_dir", str(tmp_path), *flags]
        _, config, model = pgpo.make_parser().parse_args_and_config(words)
        add_model_arguments(config, model)
        return {"config": config, "model": model}

    trainer = SimpleNamespace(is_world_process_zero=lambda: True)
    write_run_description(tmp_path, trainer, **arguments(began_quick))
    resume = ["--resume_from_checkpoint", "true"]
    later = arguments(not began_quick, *resume)
    assert later["config"].bf16 is began_quick
    assert changed_settings(tmp_path, **later) == []
    named = arguments(not began_quick, *resume, "--bf16", str(not began_quick))
    assert f"bf16: {began_quick} -> {not began_quick}" in changed_settings(tmp_path, **named)
