"""What the user hands over is checked before anything expensive starts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from datasets import IterableDataset

from poise.models import ModelError
from poise.training.preflight import (
    check_before_loading,
    check_chat_template,
    check_output_folder,
    first_rows,
)
from tests.tiny import tiny_dataset, tiny_tokenizer

CHAT = [{"prompt": [{"role": "user", "content": "add 1 and 1"}]}]


def test_a_folder_that_can_be_written_is_made_and_left_empty(tmp_path: Path) -> None:
    check_output_folder(tmp_path / "runs" / "first")
    assert list((tmp_path / "runs" / "first").iterdir()) == []


def test_a_folder_that_is_there_is_left_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text("kept")
    check_output_folder(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.jsonl"]


@pytest.mark.parametrize("path", ["file", "file/run"])
def test_a_file_in_the_way_is_named_with_the_argument_to_change(tmp_path: Path, path: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match=rf"output_dir .*{path} cannot be written \(.+\); choose ano"):
        check_output_folder(tmp_path / path)


def test_a_folder_without_room_or_rights_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(**options: Any) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("tempfile.NamedTemporaryFile", refuse)
    with pytest.raises(OSError, match=r"cannot be written \(Permission denied\)"):
        check_output_folder(tmp_path)


def test_a_dataset_is_required(make_config: Callable[..., Any]) -> None:
    with pytest.raises(ValueError, match="train_dataset is required: pass a Dataset with a column"):
        check_before_loading("model", make_config(), None)


def test_a_path_that_is_not_a_model_is_refused(
    make_config: Callable[..., Any], tmp_path: Path
) -> None:
    with pytest.raises(ModelError, match=r"no-model"):
        check_before_loading(str(tmp_path / "no-model"), make_config(), tiny_dataset())


def test_good_input_passes(make_config: Callable[..., Any], tiny_model_path: str) -> None:
    check_before_loading(tiny_model_path, make_config(), tiny_dataset())


def test_a_conversation_needs_a_chat_template() -> None:
    with pytest.raises(ValueError, match=r"tokenizer has no chat template; use an instruction-tun"):
        check_chat_template(CHAT, tiny_tokenizer(chat=False))
    check_chat_template(CHAT, tiny_tokenizer())


def test_plain_text_needs_no_chat_template() -> None:
    check_chat_template([{"prompt": "add 1 and 1"}], tiny_tokenizer(chat=False))


def test_the_first_rows_of_any_dataset_can_be_looked_at() -> None:
    rows = tiny_dataset(5)
    stream: IterableDataset = rows.to_iterable_dataset()
    for dataset in (rows, stream, rows.to_list()):
        assert [row["answer"] for row in first_rows(dataset, 2)] == ["0", "2"]
    assert len(first_rows(rows, 9)) == 5
    assert len(list(stream)) == 5  # looking takes nothing out
