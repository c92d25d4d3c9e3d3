"""Who rewrites: an OpenAI-compatible endpoint, or a transformers model on this machine."""

from __future__ import annotations

import os
import re
import threading
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future
from typing import Any

import openai

from .prompts import Messages, RefusedRequest, TeacherError, whole

_ACCOUNT = ("Authorization", "OpenAI-Organization", "OpenAI-Project")
# What the endpoint has against one conversation: too long, or filtered.
_REFUSED = (400, 413, 422)
_TRANSIENT = (408, 409, 429)
_HINTS = {401: "check the key", 403: "check the key", 404: "check --base_url and the model"}
_MOST_SHOWN = 300  # characters of an endpoint's own words


class EndpointTeacher:
    """An OpenAI-compatible endpoint, asked by the ``openai`` client.

    The client tries again what may pass (429, 5xx, timeouts, dropped connections, replies that are
    no chat completion), with growing waits or those of ``Retry-After``. The key is kept in memory
    alone, and cut out of all that the endpoint says.

    Args as of `poise isomers build`, with the endpoint's own name of the model, and None as the key
    for an endpoint that wants none.

    Raises:
        ValueError: an address with a user, a password or a query.
    """

    def __init__(
        self,
        model: str,
        base_url: str,
        key: str | None = None,
        timeout: float | None = 120.0,
        retries: int = 6,
        *,
        temperature: float | None = None,
        max_tokens: int | None = None,
        concurrency: int = 4,
    ) -> None:
        if not re.fullmatch(r"(?i:https?)://[^\s/?#@:][^\s/?#@]*(/[^\s?#]*)?", base_url):
            # It is not shown, as a password may be in it.
            raise ValueError(
                "base_url: expected an address like http://localhost:8000/v1, without user, "
                "password, query and fragment, found another; keys come from --api_key_env"
            )
        self.name, self.model, self.base_url = f"endpoint:{model}", model, base_url.rstrip("/")
        self.sampling = _given(temperature=temperature, max_tokens=max_tokens)
        self.concurrency, self._retries, self._key = concurrency, retries, key
        hooks = {"request": [self._before], "response": [self._after]}
        self._client = openai.OpenAI(
            api_key=key or "none",
            base_url=self.base_url,
            timeout=timeout,
            max_retries=retries,
            http_client=openai.DefaultHttpxClient(follow_redirects=False, event_hooks=hooks),
        )

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
                raise self._failure(error) from None

    def complete(self, messages: Messages) -> str:
        """The reply to chat messages with ``role`` and ``content``; several threads may ask.

        Raises:
            RefusedRequest: this conversation will not be answered.
            TeacherError: nothing will be, for the time being.
        """
        body: dict[str, Any] = {"model": self.model, "messages": messages, **self.sampling}
        try:
            reply = self._client.chat.completions.with_raw_response.create(**body)
        except openai.APIError as error:
            raise self._failure(error) from None
        content = _content(reply.http_response)
        return self._clean(content if isinstance(content, str) else "")

    def _before(self, request: Any) -> None:
        """The client adds what its own environment variables say, for whatever address."""
        custom = os.environ.get("OPENAI_CUSTOM_HEADERS", "")
        for name in (*_ACCOUNT, *(line.partition(":")[0].strip() for line in custom.splitlines())):
            request.headers.pop(name, None)
        if self._key:
            request.headers["Authorization"] = f"Bearer {self._key}"

    def _after(self, response: Any) -> None:
        """Fails on what is no chat completion, so that the client asks again."""
        if response.is_success and response.request.method == "POST":
            response.read()
            _content(response)

    def _failure(self, error: openai.APIError) -> TeacherError:
        """What to say when the client has given up."""
        status = error.status_code if isinstance(error, openai.APIStatusError) else None
        if status is None or status >= 500 or status in _TRANSIENT:
            problem = f"HTTP {status}" if status else self._cause(error)
            return TeacherError(
                f"{self.base_url} failed, with up to {self._retries} retries: {problem}; what is "
                "finished is kept, run the same command again to go on"
            )
        said = " ".join(self._clean(error.response.text).split())[:_MOST_SHOWN]
        shown, hint = f" ({said})" if said else "", _HINTS.get(status, "check the settings")
        kind = RefusedRequest if status in _REFUSED else TeacherError
        return kind(f"{self.base_url} answered HTTP {status}{shown}; {hint}")

    def _cause(self, error: openai.APIError) -> str:
        cause = error.__cause__ or error
        return self._clean(f"{type(cause).__name__}: {cause}")

    def _clean(self, said: str) -> str:
        return whole(said.replace(self._key, "[key]") if self._key else said)


def _content(response: Any) -> Any:
    try:
        return response.json()["choices"][0]["message"]["content"]
    except (ValueError, LookupError, TypeError):
        raise ValueError("a reply that is no chat completion") from None


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
            "export it, name another with --api_key_env, or say --api_key_env '' for no key"
        )
    if not key.isascii() or not key.isprintable() or " " in key:
        raise ValueError(f"{variable}: expected a key of plain letters, digits and signs")
    return key


class LocalTeacher:
    """A language model on this machine: a folder or hub id.

    Threads that ask while the model is busy are answered together, in one batch. Args as of
    `poise isomers build`; `name` is what the journal calls it.

    Raises:
        ValueError: it cannot be loaded, or its tokenizer has no chat template.
    """

    def __init__(
        self,
        path: str,
        name: str = "local",
        device: str | None = None,
        *,
        temperature: float | None = None,
        max_tokens: int | None = None,
        concurrency: int = 4,
    ) -> None:
        from transformers import AutoModelForCausalLM, AutoTokenizer

        from ...precision import pick_device

        try:
            self._tokenizer = AutoTokenizer.from_pretrained(path, padding_side="left")
            model = AutoModelForCausalLM.from_pretrained(path, dtype="auto", use_safetensors=True)
        except (OSError, ValueError, ImportError) as error:
            raise ValueError(f"{name}: expected a language model, found none ({error})") from error
        if not self._tokenizer.chat_template:
            raise ValueError(
                f"{name}: expected a model with a chat template, found none; use an "
                "instruction-tuned one"
            )
        self._model: Any = model.to(pick_device(device)).eval()
        self.name, self.concurrency = name, concurrency
        self._max_tokens = 1024 if max_tokens is None else max_tokens
        self.sampling = _given(temperature=temperature, max_tokens=self._max_tokens)
        self._drawing: dict[str, Any] = {}
        if temperature:
            self._drawing = {"do_sample": True, "temperature": temperature}
        elif temperature is not None:
            self._drawing = {"do_sample": False, "temperature": None, "top_p": None, "top_k": None}
        self._waiting: deque[tuple[Messages, Future[str]]] = deque()
        self._turn = threading.Lock()

    def check(self) -> None:
        """Nothing: whoever is loaded can be asked."""

    def complete(self, messages: Messages) -> str:
        """The reply to chat messages, as `EndpointTeacher.complete`.

        Raises:
            RefusedRequest: they leave no room for a reply.
        """
        mine: Future[str] = Future()
        self._waiting.append((messages, mine))
        # Whoever has the turn answers for all who wait, in the order in which they came.
        with self._turn:
            while not mine.done():
                count = min(self.concurrency, len(self._waiting))
                self._answer([self._waiting.popleft() for _ in range(count)])
        return mine.result()

    def complete_many(self, conversations: Sequence[Messages]) -> list[str]:
        """The replies to several conversations, in one batch.

        Raises:
            RefusedRequest: the longest leaves no room for a reply.
        """
        import torch

        tokens = self._tokenizer.apply_chat_template(
            list(conversations), add_generation_prompt=True, padding=True, return_dict=True,
            return_tensors="pt",
        ).to(self._model.device)  # fmt: skip
        length = tokens["input_ids"].shape[1]
        room = (getattr(self._model.config, "max_position_embeddings", None) or 10**9) - length
        if room < 1:
            raise RefusedRequest(
                f"{self.name}: the conversation has {length} tokens, which leaves no room for a "
                "reply; use a model with a longer context"
            )
        with torch.inference_mode():
            output = self._model.generate(
                input_ids=tokens["input_ids"],
                attention_mask=tokens["attention_mask"],
                max_new_tokens=min(self._max_tokens, room),
                pad_token_id=self._tokenizer.pad_token_id,
                **self._drawing,
            )
        replies = self._tokenizer.batch_decode(output[:, length:], skip_special_tokens=True)
        return list(replies)

    def _answer(self, batch: Sequence[tuple[Messages, Future[str]]]) -> None:
        try:
            replies = self.complete_many([messages for messages, _ in batch])
        except BaseException as error:
            if isinstance(error, RefusedRequest) and len(batch) > 1:
                for item in batch:  # only the longest is to blame
                    self._answer([item])
                return
            for _, future in batch:
                future.set_exception(error)
        else:
            for (_, future), reply in zip(batch, replies, strict=True):
                future.set_result(reply)


Teacher = EndpointTeacher | LocalTeacher


def _given(**settings: Any) -> dict[str, Any]:
    """Those that are not None."""
    return {name: value for name, value in settings.items() if value is not None}
