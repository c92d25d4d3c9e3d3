"""A local transformers model as the teacher."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future
from typing import Any

from .prompts import Messages
from .teachers import RefusedRequest


class LocalTeacher:
    """A language model on this machine.

    Threads that ask while the model is busy are answered together, in one batch.

    Args:
        path: A folder or hub id.
        name: What the journal calls it.
        device: Where it runs, by default an accelerator if there is one.
        temperature: 0 is greedy; None leaves sampling to the model's generation config.
        max_tokens: Longest reply in tokens.
        concurrency: Most conversations in one batch.

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
        max_tokens: int = 1024,
        concurrency: int = 4,
    ) -> None:
        from transformers import AutoModelForCausalLM, AutoTokenizer

        from ...precision import pick_device

        try:
            self.tokenizer = AutoTokenizer.from_pretrained(path, padding_side="left")
            model = AutoModelForCausalLM.from_pretrained(path, dtype="auto", use_safetensors=True)
        except (OSError, ValueError, ImportError) as error:
            raise ValueError(f"{name}: expected a language model, found none ({error})") from error
        if not self.tokenizer.chat_template:
            raise ValueError(
                f"{name}: expected a model with a chat template, found none; use an "
                "instruction-tuned one"
            )
        self.model: Any = model.to(pick_device(device)).eval()
        given = {"temperature": temperature, "max_tokens": max_tokens}
        self.sampling = {key: value for key, value in given.items() if value is not None}
        self.name, self.max_tokens, self.concurrency = name, max_tokens, concurrency
        self._waiting: deque[tuple[Messages, Future[str]]] = deque()
        self._turn = threading.Lock()

    def complete(self, messages: Messages) -> str:
        """As `Teacher.complete`."""
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

        batch = self.tokenizer.apply_chat_template(
            list(conversations),
            add_generation_prompt=True,
            padding=True,
            return_dict=True,
            return_tensors="pt",
        ).to(self.model.device)
        length = batch["input_ids"].shape[1]
        room = (getattr(self.model.config, "max_position_embeddings", None) or 10**9) - length
        if room < 1:
            raise RefusedRequest(
                f"{self.name}: the conversation has {length} tokens, which leaves no room for a "
                "reply; use a model with a longer context"
            )
        with torch.inference_mode():
            output = self.model.generate(
                input_ids=batch["input_ids"],
                attention_mask=batch["attention_mask"],
                max_new_tokens=min(self.max_tokens, room),
                pad_token_id=self.tokenizer.pad_token_id,
                **self._drawing(),
            )
        replies: list[str] = self.tokenizer.batch_decode(
            output[:, length:], skip_special_tokens=True
        )
        return replies

    def _drawing(self) -> dict[str, Any]:
        temperature = self.sampling.get("temperature")
        if temperature is None:
            return {}
        if temperature == 0:
            return {"do_sample": False, "temperature": None, "top_p": None, "top_k": None}
        return {"do_sample": True, "temperature": temperature}

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
