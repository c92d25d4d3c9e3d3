"""A local transformers model as the teacher."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future
from typing import Any, Self

from .prompts import Messages
from .teachers import RefusedRequest, TeacherError, check_sampling


class LocalTeacher:
    """A language model on this machine.

    Threads that ask while the model is busy are answered together, in one batch.

    Args:
        model: A causal language model of transformers, in evaluation mode.
        tokenizer: Its tokenizer, with a chat template.
        name: What the journal calls it.
        temperature: 0 is greedy; None leaves sampling to the model's generation config.
        max_tokens: Longest reply in tokens.
        concurrency: Most conversations in one batch.

    Raises:
        ValueError: the tokenizer has no chat template, or a setting is outside its range.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        name: str = "local",
        *,
        temperature: float | None = None,
        max_tokens: int = 1024,
        concurrency: int = 4,
    ) -> None:
        if not tokenizer.chat_template:
            raise ValueError(
                f"{name}: expected a model with a chat template, found none; use an "
                "instruction-tuned one"
            )
        self.sampling = check_sampling(temperature, max_tokens, concurrency)
        self.model, self.tokenizer, self.name = model, tokenizer, name
        self.temperature, self.max_tokens = temperature, max_tokens
        self.concurrency = concurrency
        self._waiting: deque[tuple[Messages, Future[str]]] = deque()
        self._turn = threading.Lock()

    @classmethod
    def load(cls, path: str, name: str, device: str | None = None, **settings: Any) -> Self:
        """The model of a folder or hub id, on the named device, else an accelerator if any.

        Raises:
            ValueError: it cannot be loaded, or as the constructor.
        """
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer

        place = torch.device(device) if device else torch.accelerator.current_accelerator(True)
        try:
            tokenizer = AutoTokenizer.from_pretrained(path, trust_remote_code=False)
            model = AutoModelForCausalLM.from_pretrained(
                path, dtype="auto", use_safetensors=True, trust_remote_code=False
            )
        except (OSError, ValueError, ImportError) as error:
            raise ValueError(f"{name}: expected a language model, found none ({error})") from error
        return cls(model.to(place or "cpu").eval(), tokenizer, name, **settings)

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

        texts = [
            self.tokenizer.apply_chat_template(turns, add_generation_prompt=True, tokenize=False)
            for turns in conversations
        ]
        batch = self.tokenizer(
            texts, padding=True, padding_side="left", add_special_tokens=False, return_tensors="pt"
        )
        length = batch["input_ids"].shape[1]
        room = (getattr(self.model.config, "max_position_embeddings", None) or 10**9) - length
        if room < 1:
            raise RefusedRequest(
                f"{self.name}: the conversation has {length} tokens, which leaves no room for a "
                "reply; use a model with a longer context"
            )
        with torch.inference_mode():
            output = self.model.generate(
                input_ids=batch["input_ids"].to(self.model.device),
                attention_mask=batch["attention_mask"].to(self.model.device),
                max_new_tokens=min(self.max_tokens, room),
                pad_token_id=self.tokenizer.pad_token_id,
                **self._drawing(),
            )
        replies: list[str] = self.tokenizer.batch_decode(
            output[:, length:], skip_special_tokens=True
        )
        return replies

    def _drawing(self) -> dict[str, Any]:
        if self.temperature is None:
            return {}
        if self.temperature == 0:
            return {"do_sample": False, "temperature": None, "top_p": None, "top_k": None}
        return {"do_sample": True, "temperature": self.temperature}

    def _answer(self, batch: Sequence[tuple[Messages, Future[str]]]) -> None:
        try:
            replies = self.complete_many([messages for messages, _ in batch])
        except TeacherError as error:
            if len(batch) > 1:  # only the longest is to blame
                for item in batch:
                    self._answer([item])
                return
            batch[0][1].set_exception(error)
        except BaseException as error:
            for _, future in batch:
                future.set_exception(error)
        else:
            for (_, future), reply in zip(batch, replies, strict=True):
                future.set_result(reply)
