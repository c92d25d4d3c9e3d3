"""A local OpenAI-compatible server with a teacher that rewrites, and moods in which it does not."""

from __future__ import annotations

import json
import re
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from unittest.mock import patch

KEY = "sk-test-9f3b7c21d8e64a05"


def source_row(number: int) -> dict[str, Any]:
    """A user's problem: 4 numbers and an answer of its own."""
    each, boxes = 3 + number, 5 + 2 * number
    return {
        "id": f"p{number}",
        "question": f"Ann puts {each} pears into each basket. If she fills {boxes} baskets, how "
        "many pears does she need?",
        "answer": each * boxes,
    }


@dataclass(frozen=True)
class Asked:
    """What a request asked for."""

    domain: str
    each: int
    boxes: int
    is_retry: bool
    body: dict[str, Any]
    headers: dict[str, str]

    @property
    def pair(self) -> tuple[int, str]:
        return self.each - 3, self.domain


def rewritten(asked: Asked, **changes: Any) -> str:
    """A faithful reply, in words that belong to the domain alone."""
    own, n, m = asked.domain.replace(" ", ""), asked.each, asked.boxes
    reply = {
        "prompt": f"Every {own}ist has {n} {own}ons. If {m} {own}ists come, how many {own}ons "
        "will that be?",
        "reasoning": f"{m} {own}ists times {n} {own}ons makes {n * m} {own}ons.",
        "answer": str(n * m),
    }
    return json.dumps(reply | changes)


@dataclass(frozen=True)
class Reply:
    """What the server sends: chat text, or an error, or nothing and hangs up or on."""

    text: str = ""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    drop: bool = False
    delay: float = 0.0
    raw: str | None = None


Mood = Callable[["Endpoint", Asked], Reply | None]


class Endpoint:
    """The server's memory, and its mood: (endpoint, asked) -> what to send instead, or None."""

    def __init__(self) -> None:
        self.asked: list[Asked] = []
        self.looks = 0  # at the list of models
        self.mood: Mood = lambda endpoint, asked: None
        self.key: str | None = KEY
        self.most_at_once = 0
        self.gate = threading.Event()  # closed only by moods that wait for it
        self._at_once = 0
        self._lock = threading.Lock()
        self.url = ""

    def count(self, asked: Asked) -> int:
        """How often this pair has been asked for, this time included."""
        return sum(other.pair == asked.pair for other in self.asked)

    def serve(self, body: dict[str, Any], headers: dict[str, str]) -> Reply:
        asked = _read(body, headers)
        with self._lock:
            self.asked.append(asked)
            self._at_once += 1
            self.most_at_once = max(self.most_at_once, self._at_once)
            reply = self.mood(self, asked)
        try:
            if reply is not None and reply.delay:
                self.gate.wait(reply.delay)
            return reply or Reply(rewritten(asked))
        finally:
            with self._lock:
                self._at_once -= 1


def _read(body: dict[str, Any], headers: dict[str, str]) -> Asked:
    told = body["messages"][1]["content"]
    domain = re.search(r"Domain: (.*)", told)
    found = re.search(r"puts (\d+) pears.*fills (\d+) baskets", told)
    assert domain and found, told
    return Asked(domain[1], int(found[1]), int(found[2]), len(body["messages"]) > 2, body, headers)


def _handler(endpoint: Endpoint) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *words: Any) -> None:
            pass

        def is_known(self) -> bool:
            given = self.headers["Authorization"] or ""
            if endpoint.key is None or given == f"Bearer {endpoint.key}":
                return True
            self.answer(401, json.dumps({"error": f"no such key: {given}"}))
            return False

        def do_GET(self) -> None:
            endpoint.looks += 1
            if self.is_known():
                self.answer(200, "{}")

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            if not self.is_known():
                return
            reply = endpoint.serve(body, dict(self.headers))
            if reply.drop:
                self.connection.shutdown(socket.SHUT_RDWR)
                self.close_connection = True
                return
            message = {"choices": [{"message": {"role": "assistant", "content": reply.text}}]}
            raw = reply.raw if reply.raw is not None else json.dumps(message)
            self.answer(reply.status, raw, reply.headers)

        def answer(self, status: int, text: str, headers: dict[str, str] | None = None) -> None:
            try:
                self.send_response(status)
                for name, value in (headers or {}).items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(text.encode())))
                self.end_headers()
                self.wfile.write(text.encode())
            except OSError:
                pass  # whoever asked is gone

    return Handler


@contextmanager
def running_endpoint() -> Iterator[Endpoint]:
    """A server on a free port of this machine, asked again without long waits."""
    endpoint = Endpoint()
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(endpoint))
    server.daemon_threads = True
    endpoint.url = f"http://127.0.0.1:{server.server_address[1]}/v1"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        with patch("openai._base_client.INITIAL_RETRY_DELAY", 0.01):
            yield endpoint
    finally:
        endpoint.gate.set()
        server.shutdown()
        server.server_close()
        thread.join()
