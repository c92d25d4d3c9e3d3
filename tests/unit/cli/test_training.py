"""What the training commands share."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from poise.cli import iga, pgpo


@pytest.mark.parametrize("command", [pgpo, iga])
@pytest.mark.parametrize("has_accelerator", [True, False])
def test_a_cpu_is_used_where_there_is_nothing_else(
    command: object, has_accelerator: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.accelerator, "is_available", lambda *_, **__: has_accelerator)
    parser = command.make_parser()  # type: ignore[attr-defined]
    assert parser.get_default("use_cpu") is not has_accelerator
    (file := tmp_path / "own.yaml").write_text("use_cpu: true\nbf16: false\n")
    asked = ["--config", str(file), "--output_dir", str(tmp_path)]
    assert parser.parse_args_and_config(asked)[1].use_cpu
