"""A model on this machine answers, several threads at a time."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from poise.isomers.build.prompts import RefusedRequest
from poise.isomers.build.teachers import LocalTeacher
from tests.tiny import save_tiny_model, tiny_tokenizer


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> str:
    return save_tiny_model(tmp_path_factory.mktemp("teacher"))


def load(path: str, **settings: Any) -> LocalTeacher:
    return LocalTeacher(
        path, "local:tiny", "cpu", **{"max_tokens": 8, "temperature": 0, **settings}
    )


def say(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


def test_a_batch_is_answered_as_each_alone(path: str) -> None:
    teacher = load(path)
    conversations = [say("add 2 and 3"), say("a"), say("what is it that you know?")]
    replies = teacher.complete_many(conversations)
    assert replies == [teacher.complete(one) for one in conversations]
    assert len(set(replies)) > 1 and all("add" not in reply for reply in replies)


def test_threads_that_wait_are_answered_together(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    teacher = load(path, concurrency=3)
    sizes, first, go_on = [], threading.Event(), threading.Event()

    def slow(conversations: list[Any]) -> list[str]:
        sizes.append(len(conversations))
        first.set()
        go_on.wait(30)
        return [turns[0]["content"].upper() for turns in conversations]

    monkeypatch.setattr(teacher, "complete_many", slow)
    with ThreadPoolExecutor(6) as pool:
        replies = [pool.submit(teacher.complete, say("a"))]
        assert first.wait(30)
        replies += [pool.submit(teacher.complete, say(text)) for text in "bcdef"]
        while len(teacher._waiting) < 5:
            pass
        go_on.set()
        assert [reply.result() for reply in replies] == list("ABCDEF")
    assert sizes == [1, 3, 2]


def test_a_conversation_without_room_is_refused_and_its_neighbours_are_not(path: str) -> None:
    teacher = load(path)
    with ThreadPoolExecutor(3) as pool:
        texts = ["a", "b" * 300, "c"]
        found = [pool.submit(teacher.complete, say(text)) for text in texts]
        assert found[0].result() and found[2].result()
        with pytest.raises(RefusedRequest, match="leaves no room"):
            found[1].result()


def test_a_failing_model_fails_every_caller(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    teacher = load(path)
    monkeypatch.setattr(teacher, "complete_many", lambda _: 1 / 0)
    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            teacher.complete(say("a"))


def test_what_is_no_teacher_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="local:none: expected a language model"):
        LocalTeacher(str(tmp_path), "local:none")
    path = save_tiny_model(tmp_path / "model")
    tiny_tokenizer(chat=False).save_pretrained(path)
    (Path(path) / "chat_template.jinja").unlink(missing_ok=True)
    with pytest.raises(ValueError, match="expected a model with a chat template"):
        LocalTeacher(path)
