"""What the training commands share."""

from __future__ import annotations

from pathlib import Path

import pytest

from poise import machine
from poise.cli import pgpo
from poise.cli.training import add_model_arguments


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
    monkeypatch.setattr(machine, "has_fast_bfloat16", lambda device: True)
    parser = pgpo.make_parser()
    _, config, model = parser.parse_args_and_config(
        ["--use_cpu", "true", "--output_dir", str(tmp_path), *flags]
    )
    add_model_arguments(config, model)
    assert config.model_init_kwargs["dtype"] == model.dtype == expected
