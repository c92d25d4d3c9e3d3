"""Who rewrites: an OpenAI-compatible endpoint, or whoever has `complete` and `name`."""

from __future__ import annotations

import os
import threading
import time
from typing import Any, Protocol
from urllib.parse import urlsplit

import openai

from .prompts import Messages, whole

OPENAI = "https://api.openai.com/v1"
FIRST_WAIT = 0.5  # seconds before an unreadable reply is asked for again; doubles
_ACCOUNT = ("Authorization", "OpenAI-Organization", "OpenAI-Project")
_TRANSIENT = (408, 409, 429)
# What the endpoint has against one conversation: too long, or filtered.
_REFUSED = (400, 413, 422)
_HINTS = {401: "check the key", 403: "check the key", 404: "check --base_url and the model"}
_MOST_SHOWN = 300  # characters of an endpoint's own words


class TeacherError(RuntimeError):
    """The teacher cannot be asked; the message says why and what to do."""


class RefusedRequest(TeacherError):
    """The endpoint refuses this one conversation, and would again."""


class Teacher(Protocol):
    """Whoever answers a conversation. `complete` is called from `concurrency` threads.

    A journal keeps name and `sampling`, which shape the replies, and goes on with the same only.
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
    """An OpenAI-compatible endpoint, asked by the ``openai`` client.

    The client tries again what may pass (429, 5xx, timeouts, dropped connections), with growing
    waits or those of ``Retry-After``; we do so with an unreadable reply. The key is kept in memory
    alone, and cut out of all that the endpoint says.

    Args:
        model: The endpoint's name of the model.
        base_url: Where it is, up to and with ``/v1``.
        key: The key, None for an endpoint that wants none.
        temperature, max_tokens: Of a request; None leaves them to the endpoint.
        timeout: Seconds to wait for a reply.
        retries: Most further attempts of one request.
        requests_per_minute: Most requests in a minute, attempts included; None for no bound.
        concurrency: Most requests under way at a time.

    Raises:
        ValueError: an address with a user, a password or a query.
    """

    def __init__(
        self,
        model: str,
        base_url: str = OPENAI,
        key: str | None = None,
        *,
        timeout: float = 120.0,
        retries: int = 6,
        requests_per_minute: float | None = None,
        concurrency: int = 4,
        temperature: float | None = None,
        max_tokens: int | None = None,
    ) -> None:
        if concurrency < 1:
            raise ValueError(f"concurrency: expected 1 or more, found {concurrency}")
        sampling = {"temperature": temperature, "max_tokens": max_tokens}
        self.sampling = {name: value for name, value in sampling.items() if value is not None}
        self.name, self.model, self.base_url = f"endpoint:{model}", model, _check_url(base_url)
        self.concurrency, self.retries = concurrency, retries
        self._key, self._turns = key, Turns(requests_per_minute)
        self._client = openai.OpenAI(
            api_key=key or "none",
            base_url=self.base_url,
            timeout=timeout,
            max_retries=retries,
            http_client=openai.DefaultHttpxClient(
                follow_redirects=False, event_hooks={"request": [self._before]}
            ),
        )

    def __repr__(self) -> str:
        return f"EndpointTeacher(model={self.model!r}, base_url={self.base_url!r})"

    def check(self) -> None:
        """See that somebody is there who takes the key, without asking for a completion.

        Raises:
            TeacherError: the address cannot be reached, or the key is refused.
        """
        client = self._client.with_options(timeout=20.0, max_retries=0)
        try:
            client.models.with_raw_response.list()
        except openai.APIConnectionError as error:
            raise TeacherError(
                f"expected an OpenAI-compatible endpoint at {self.base_url}, found none "
                f"({self._cause(error)}); check --base_url and that the server runs"
            ) from None
        except openai.APIStatusError as error:
            if error.status_code in (401, 403):
                raise self._status_error(error) from None

    def complete(self, messages: Messages) -> str:
        """As `Teacher.complete`; waits and tries again where that may help."""
        body: dict[str, Any] = {"model": self.model, "messages": messages, **self.sampling}
        problem = ""
        for attempt in range(self.retries + 1):
            try:
                reply = self._client.chat.completions.with_raw_response.create(**body)
            except openai.APIConnectionError as error:
                problem = self._cause(error)
                break
            except openai.APIStatusError as error:
                if error.status_code < 500 and error.status_code not in _TRANSIENT:
                    raise self._status_error(error) from None
                problem = f"HTTP {error.status_code}"
                break
            try:
                content = reply.http_response.json()["choices"][0]["message"]["content"]
            except (ValueError, LookupError, TypeError):
                problem = "a reply that is no chat completion"
                time.sleep(FIRST_WAIT * 2.0 ** min(attempt, 4))
            else:
                return self._clean(content if isinstance(content, str) else "")
        raise TeacherError(
            f"{self.base_url} failed, with up to {self.retries} retries: {problem}; "
            "what is finished is kept, run the same command again to go on"
        )

    def _before(self, request: Any) -> None:
        """Runs before every request, further attempts included."""
        self._turns.wait()
        # The client adds what its own environment variables say, for whatever address.
        custom = os.environ.get("OPENAI_CUSTOM_HEADERS", "")
        for name in (*_ACCOUNT, *(line.partition(":")[0].strip() for line in custom.splitlines())):
            request.headers.pop(name, None)
        if self._key:
            request.headers["Authorization"] = f"Bearer {self._key}"

    def _status_error(self, error: openai.APIStatusError) -> TeacherError:
        status, hint = error.status_code, _HINTS.get(error.status_code, "check the settings")
        said = " ".join(self._clean(error.response.text).split())[:_MOST_SHOWN]
        kind = RefusedRequest if status in _REFUSED else TeacherError
        shown = f" ({said})" if said else ""
        return kind(f"{self.base_url} answered HTTP {status}{shown}; {hint}")

    def _cause(self, error: openai.APIConnectionError) -> str:
        cause = error.__cause__ or error
        return self._clean(f"{type(cause).__name__}: {cause}")

    def _clean(self, said: str) -> str:
        return whole(said.replace(self._key, "[key]") if self._key else said)


class Turns:
    """Starts of requests, spaced evenly over the threads that share them; None for no bound."""

    def __init__(self, per_minute: float | None = None) -> None:
        self.interval = 60.0 / per_minute if per_minute else 0.0
        self._lock = threading.Lock()
        self._next = 0.0

    def wait(self) -> None:
        """Sleep until the caller may start."""
        with self._lock:
            now = time.monotonic()
            start = max(now, self._next)
            self._next = start + self.interval
        if start > now:
            time.sleep(start - now)


def read_key(variable: str) -> str | None:
    """The key in an environment variable, None if `variable` is empty.

    Raises:
        ValueError: it is not set, or cannot be a key; the value is not shown.
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


def _check_url(base_url: str) -> str:
    try:
        url = urlsplit(base_url)
        is_plain = url.scheme in ("http", "https") and bool(url.hostname)
        is_plain = is_plain and "@" not in url.netloc and not url.query
    except ValueError:
        is_plain = False
    if not is_plain:
        # The address goes into messages: a password in it must not, so it is not shown.
        raise ValueError(
            "base_url: expected an address like http://localhost:8000/v1, without user, password "
            "and query, found another; keys come from --api_key_env"
        )
    return base_url.rstrip("/")
