"""Who retells: an OpenAI-compatible endpoint, or whoever has `complete` and `name`."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, Protocol

import httpx2

from .pace import Pace, backoff, retry_after
from .prompts import Messages, whole

OPENAI = "https://api.openai.com/v1"
KEY_VARIABLE = "OPENAI_API_KEY"
_TRANSIENT = frozenset({408, 409, 425, 429})
# What the endpoint has against one conversation: too long, or filtered.
_REFUSED = frozenset({400, 413, 422})
_MOST_SHOWN = 300  # characters of an endpoint's own words


class TeacherError(RuntimeError):
    """The teacher cannot be asked; the message says why and what to do."""


class RefusedRequest(TeacherError):
    """The endpoint refuses this one conversation, and would again."""


class Teacher(Protocol):
    """Whoever answers a conversation. `complete` is called from several threads.

    Attributes:
        name: What the journal calls it.
        concurrency: How many calls may be under way at a time.
        sampling: Settings that shape the replies; a journal is continued with the same only.
    """

    name: str
    concurrency: int
    sampling: dict[str, float]

    def complete(self, messages: Messages) -> str:
        """The reply to chat messages with ``role`` and ``content``.

        Raises:
            RefusedRequest: this conversation will not be answered.
            TeacherError: nothing will be, for the time being.
        """
        ...


class EndpointTeacher:
    """An OpenAI-compatible endpoint: ``POST {base_url}/chat/completions``.

    Failures that pass (429, 5xx, timeouts, dropped connections, unreadable replies) are tried
    again with growing waits; ``Retry-After`` holds all threads. The key is kept in memory alone,
    and cut out of all that the endpoint says.

    Args:
        model: The endpoint's name of the model.
        base_url: Where it is, up to and with ``/v1``.
        key: The key, None for an endpoint that wants none.
        temperature, max_tokens: Sampling; None leaves it to the endpoint.
        timeout: Seconds to wait for a reply.
        retries: Most further attempts of one request.
        requests_per_minute: Most requests in a minute, attempts included; None for no bound.
        concurrency: Most requests under way at a time.
        first_wait: Longest first wait in seconds; later ones double.

    Raises:
        ValueError: a setting outside its range, or an address with a user, a password or a query.
    """

    def __init__(
        self,
        model: str,
        base_url: str = OPENAI,
        key: str | None = None,
        *,
        temperature: float | None = None,
        max_tokens: int | None = None,
        timeout: float = 120.0,
        retries: int = 6,
        requests_per_minute: float | None = None,
        concurrency: int = 4,
        first_wait: float = 1.0,
    ) -> None:
        _check(timeout=timeout, retries=retries, concurrency=concurrency)
        _check(temperature=temperature, max_tokens=max_tokens)
        self.name = f"endpoint:{model}"
        self.model, self.base_url = model, _check_url(base_url)
        self.concurrency, self.retries, self.first_wait = concurrency, retries, first_wait
        self.pace = Pace(requests_per_minute)
        sampling: dict[str, float | None] = {"temperature": temperature, "max_tokens": max_tokens}
        self.sampling = {name: value for name, value in sampling.items() if value is not None}
        self._key = key
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._client = httpx2.Client(headers=headers, timeout=timeout)

    def __repr__(self) -> str:
        return f"EndpointTeacher(model={self.model!r}, base_url={self.base_url!r})"

    def check(self) -> None:
        """See that somebody is there who takes the key, without asking for a completion.

        Raises:
            TeacherError: the address cannot be reached, or the key is refused.
        """
        try:
            response = self._client.get(f"{self.base_url}/models", timeout=20.0)
        except httpx2.HTTPError as error:
            raise TeacherError(
                f"expected an OpenAI-compatible endpoint at {self.base_url}, found none "
                f"({self._clean(error)}); check --base_url and that the server runs"
            ) from None
        if response.status_code in (401, 403):
            raise self._status_error(response)

    def complete(self, messages: Messages) -> str:
        """As `Teacher.complete`; waits and tries again where that may help."""
        problem = ""
        for attempt in range(self.retries + 1):
            self.pace.wait()
            reply, problem, asked = self._ask(messages)
            if reply is not None:
                return reply
            if attempt < self.retries:
                # All threads wait: an endpoint in trouble is not helped by the others.
                self.pace.pause(backoff(attempt, self.first_wait) if asked is None else asked)
        raise TeacherError(
            f"{self.base_url} failed {self.retries + 1} times in a row, lastly with {problem}; "
            "what is finished is kept, run the same command again to go on"
        )

    def _ask(self, messages: Messages) -> tuple[str | None, str, float | None]:
        """One attempt: the reply, or what went wrong and the wait that was asked for."""
        body = {"model": self.model, "messages": messages, **self.sampling}
        try:
            response = self._client.post(f"{self.base_url}/chat/completions", json=body)
        except httpx2.TransportError as error:
            return None, self._clean(error), None
        status = response.status_code
        if status in _TRANSIENT or status >= 500:
            return None, f"HTTP {status}", retry_after(response.headers.get("retry-after"))
        if status != 200:
            raise self._status_error(response)
        try:
            content = response.json()["choices"][0]["message"]["content"]
        except (ValueError, LookupError, TypeError):
            return None, "a reply that is no chat completion", None
        return self._clean(content if isinstance(content, str) else ""), "", None

    def _status_error(self, response: httpx2.Response) -> TeacherError:
        status = response.status_code
        said = " ".join(self._clean(response.text).split())[:_MOST_SHOWN]
        kind = RefusedRequest if status in _REFUSED else TeacherError
        hint = {401: "check the key", 403: "check the key", 404: "check --base_url and the model"}
        return kind(
            f"{self.base_url} answered HTTP {status}"
            f"{f' ({said})' if said else ''}; {hint.get(status, 'check the settings')}"
        )

    def _clean(self, said: object) -> str:
        """Text without the key, and an error's name where it says nothing."""
        text = f"{type(said).__name__}: {said}" if isinstance(said, Exception) else str(said)
        return whole(text.replace(self._key, "[key]") if self._key else text)


def read_key(variable: str) -> str | None:
    """The key in an environment variable, None if `variable` is empty.

    Raises:
        ValueError: the variable is not set, or its value cannot be a key; the value is not shown.
    """
    if not variable:
        return None
    key = os.environ.get(variable, "").strip()
    if not key:
        raise ValueError(
            f"expected the endpoint's key in the environment variable {variable}, found none; "
            "export it, name another with --api_key_env, or say --api_key_env '' for an endpoint "
            "that wants none"
        )
    if not key.isascii() or not key.isprintable() or " " in key:
        raise ValueError(
            f"{variable}: expected a key of plain letters, digits and signs, found others in it"
        )
    return key


def _check(**settings: float | None) -> None:
    """Raises: ValueError, naming the first setting outside its range; None is in all of them."""
    wanted: dict[str, tuple[Callable[[Any], bool], str]] = {
        "temperature": (lambda value: 0 <= value < float("inf"), "0 or more"),
        "max_tokens": (lambda value: value >= 1, "1 or more"),
        "timeout": (lambda value: 0 < value < float("inf"), "a number above 0"),
        "retries": (lambda value: value >= 0, "0 or more"),
        "concurrency": (lambda value: value >= 1, "1 or more"),
    }
    for name, value in settings.items():
        is_right, expected = wanted[name]
        if value is not None and not is_right(value):
            raise ValueError(f"{name}: expected {expected}, found {value!r}")


def _check_url(base_url: str) -> str:
    try:
        url = httpx2.URL(base_url)
    except httpx2.InvalidURL:
        url = httpx2.URL("")
    if url.scheme not in ("http", "https") or not url.host or url.userinfo or url.query:
        # The address goes into messages: a password in it must not, so it is not shown.
        raise ValueError(
            "base_url: expected an address like http://localhost:8000/v1, without user, password "
            "and query, found another; keys come from --api_key_env"
        )
    return base_url.rstrip("/")
