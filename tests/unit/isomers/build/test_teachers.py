"""An endpoint that fails, limits, hangs and talks nonsense, and a key that stays where it is."""

from __future__ import annotations

import logging
import socket
from typing import Any

import pytest

from poise.isomers.build.problems import SourceProblem
from poise.isomers.build.prompts import RefusedRequest, TeacherError, make_messages
from poise.isomers.build.teachers import EndpointTeacher, read_key
from poise.isomers.meanings import Answer

from .endpoint import KEY, Asked, Endpoint, Reply, source_row

ROW = source_row(0)
MESSAGES = make_messages(SourceProblem("p0", ROW["question"], Answer("number", "15", "15")), "law")


def teacher(endpoint: Endpoint, **settings: Any) -> EndpointTeacher:
    fast = {"key": KEY, "timeout": 5.0, "retries": 3}
    return EndpointTeacher("m", endpoint.url, **{**fast, **settings})


def fails_first(count: int, reply: Reply) -> Any:
    return lambda endpoint, asked: reply if len(endpoint.asked) <= count else None


def test_a_reply_is_returned_and_the_request_is_as_documented(endpoint: Endpoint) -> None:
    asker = teacher(endpoint, temperature=0.5, max_tokens=99)
    assert "lawist" in asker.complete(MESSAGES)
    (asked,) = endpoint.asked
    assert asked.body == {
        "model": "m", "messages": MESSAGES, "temperature": 0.5, "max_tokens": 99,
    }  # fmt: skip
    assert asked.headers["Authorization"] == f"Bearer {KEY}"


def test_the_environment_of_the_client_stays_here(
    endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_ORG_ID", "org")
    monkeypatch.setenv("OPENAI_PROJECT_ID", "project")
    monkeypatch.setenv("OPENAI_CUSTOM_HEADERS", "Authorization: Bearer other\nX-Private: x")
    teacher(endpoint).complete(MESSAGES)
    (asked,) = endpoint.asked
    assert asked.headers["Authorization"] == f"Bearer {KEY}"
    sent = {name.lower() for name in dict(asked.headers)}
    assert sent.isdisjoint({"openai-organization", "openai-project", "x-private"})


def test_what_is_left_out_is_not_sent(endpoint: Endpoint) -> None:
    endpoint.key = None
    teacher(endpoint, key=None, temperature=None).complete(MESSAGES)
    assert set(endpoint.asked[0].body) == {"model", "messages"}
    assert "Authorization" not in endpoint.asked[0].headers


@pytest.mark.parametrize(
    "reply",
    [
        Reply(status=503, headers={"Retry-After": "nonsense"}),
        Reply(status=429),
        Reply(status=408),
        Reply(drop=True),
        Reply(raw="<html>busy</html>"),
        Reply(raw='{"choices": []}'),
        Reply(raw='{"error": {"message": "overloaded"}}'),
        Reply(raw="[]"),
    ],
)
def test_what_may_pass_is_tried_again(endpoint: Endpoint, reply: Reply) -> None:
    endpoint.mood = fails_first(2, reply)
    assert "lawist" in teacher(endpoint).complete(MESSAGES)
    assert len(endpoint.asked) == 3


def test_a_reply_that_never_comes_is_asked_for_again(endpoint: Endpoint) -> None:
    endpoint.mood = fails_first(1, Reply(delay=30.0))
    assert "lawist" in teacher(endpoint, timeout=0.3).complete(MESSAGES)
    assert len(endpoint.asked) == 2


@pytest.mark.parametrize(
    ("reply", "problem"), [(Reply(status=502), "HTTP 502"), (Reply(drop=True), "Error")]
)
def test_attempts_are_bounded(endpoint: Endpoint, reply: Reply, problem: str) -> None:
    endpoint.mood = fails_first(99, reply)
    with pytest.raises(TeacherError, match=rf"failed, with up to 3 retries: .*{problem}.*go on"):
        teacher(endpoint).complete(MESSAGES)
    assert len(endpoint.asked) == 4


def test_retry_after_is_waited_for(endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []
    monkeypatch.setattr("openai._base_client.time.sleep", waits.append)
    endpoint.mood = fails_first(2, Reply(status=429, headers={"Retry-After": "33"}))
    teacher(endpoint).complete(MESSAGES)
    assert waits == [33.0, 33.0]


@pytest.mark.parametrize("status", [400, 413, 422])
def test_a_refused_conversation_is_not_tried_again(endpoint: Endpoint, status: int) -> None:
    endpoint.mood = fails_first(9, Reply(status=status, raw="content filter"))
    with pytest.raises(RefusedRequest, match=rf"HTTP {status} \(content filter\)"):
        teacher(endpoint).complete(MESSAGES)
    assert len(endpoint.asked) == 1


@pytest.mark.parametrize("status", [404, 405, 302])
def test_what_cannot_pass_stops_at_once(endpoint: Endpoint, status: int) -> None:
    endpoint.mood = fails_first(9, Reply(status=status, raw="no such model"))
    with pytest.raises(TeacherError, match=rf"HTTP {status} \(no such model\)") as error:
        teacher(endpoint).complete(MESSAGES)
    assert not isinstance(error.value, RefusedRequest) and len(endpoint.asked) == 1


def test_the_check_finds_a_server_and_asks_for_no_completion(endpoint: Endpoint) -> None:
    teacher(endpoint).check()
    assert endpoint.looks == 1 and not endpoint.asked


def test_the_check_names_an_address_where_nobody_is() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(TeacherError, match=rf"127.0.0.1:{port}/v1, found none.*--base_url"):
        EndpointTeacher("m", f"http://127.0.0.1:{port}/v1", KEY).check()


def test_a_wrong_key_is_refused_without_being_shown(endpoint: Endpoint) -> None:
    wrong = "sk-wrong-5521"
    for ask in (lambda t: t.check(), lambda t: t.complete(MESSAGES)):
        with pytest.raises(TeacherError, match=r"HTTP 401 .*\[key\].*check the key") as error:
            ask(teacher(endpoint, key=wrong))
        assert wrong not in str(error.value)


def test_the_key_shows_in_no_representation_log_or_reply(
    endpoint: Endpoint, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)

    def telltale(endpoint: Endpoint, asked: Asked) -> Reply:
        return Reply(f"your key is {KEY}", status=200 if len(endpoint.asked) > 1 else 500)

    endpoint.mood = telltale
    asker = teacher(endpoint)
    assert asker.complete(MESSAGES) == "your key is [key]"
    assert KEY not in caplog.text and KEY not in repr(asker) and KEY not in str(asker)


def test_a_reply_without_text_is_empty(endpoint: Endpoint) -> None:
    endpoint.mood = fails_first(9, Reply(raw='{"choices": [{"message": {"content": null}}]}'))
    assert teacher(endpoint).complete(MESSAGES) == ""


@pytest.mark.parametrize(
    "url", ["", "localhost:8000", "ftp://x/v1", "http://", "http://me:pw9@x/v1", "http://x?k=pw9"]
)
def test_an_address_must_be_one_without_secrets(url: str) -> None:
    with pytest.raises(ValueError, match="base_url: expected an address") as error:
        EndpointTeacher("m", url)
    assert "pw9" not in str(error.value)


def test_the_key_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", f" {KEY}\n")
    assert read_key("MY_KEY") == KEY
    assert read_key("") is None


@pytest.mark.parametrize("value", [None, "", "  "])
def test_a_missing_key_is_named(monkeypatch: pytest.MonkeyPatch, value: str | None) -> None:
    monkeypatch.delenv("MY_KEY", raising=False)
    if value is not None:
        monkeypatch.setenv("MY_KEY", value)
    with pytest.raises(ValueError, match="environment variable MY_KEY, found none"):
        read_key("MY_KEY")


@pytest.mark.parametrize("value", ["sk-ä9", "sk-a b9", "sk-a\nb9"])
def test_what_cannot_be_a_key_is_refused_without_being_shown(
    monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    monkeypatch.setenv("MY_KEY", value)
    with pytest.raises(ValueError, match="MY_KEY: expected a key") as error:
        read_key("MY_KEY")
    assert "9" not in str(error.value)
