"""Any method's gradients on the toy models: objectives, aggregators and IGA alike."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from poise.iga.adapters import find_adapters
from poise.iga.domains import DomainBatch
from poise.iga.engine import GradientEngine
from poise.iga.settings import IGA, Aggregator, DomainTokens, Evidence, Objective
from tests.equivalence.iga_gradients import Batch, Gradients, engine_step, named

LATE = 10**6  # a step after every warm-up


def gradients(
    method: IGA | Objective | Aggregator | GradientEngine | None,
    model: Any,
    batches: Sequence[Batch],
    by_tokens: bool = False,
    step: int = LATE,
) -> Gradients:
    """What a step of some micro-batches leaves in `.grad`; None is plain fine-tuning.

    An engine is one that goes on from earlier steps.
    """
    if isinstance(method, IGA | Aggregator):
        method = GradientEngine(model, method)
    if isinstance(method, GradientEngine):
        return engine_step(method, model, batches, by_tokens)
    model.zero_grad()
    for batch in batches:
        seen = evidence(model, batch, by_tokens, step)
        loss = seen.mean(seen.losses) if method is None else method(seen)
        (loss / len(batches)).backward()
    if method is not None:
        method.finish_step(lambda values: values)
    adapters = find_adapters(model)
    pairs = [tuple(p.grad.clone() for p in a.parameters) for a in adapters]
    return named(adapters, pairs)  # type: ignore[arg-type]


def evidence(model: Any, batch: Batch, by_tokens: bool = False, step: int = LATE) -> Evidence:
    """What the trainer tells an objective, from full logits."""
    hidden: list[Tensor] = []
    head = model.base_model.model.head
    handle = head.register_forward_pre_hook(lambda _module, args: hidden.append(args[0]))
    logits = model(batch.ids)[:, :-1]
    handle.remove()
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    kept, targets = batch.kept[:, 1:], batch.ids[:, 1:]
    log_p = logits.log_softmax(-1)
    own = -log_p.gather(2, targets[..., None]).squeeze(2) * kept
    entropy = -(log_p.exp() * log_p).sum(-1) * kept

    def mean(values: Tensor) -> Tensor:
        sums = values.new_zeros(batch.number).index_add(0, batch.domains, values.sum(1))
        return sums / batch.counts.clamp_min(1).to(sums)

    places = [kept & (batch.domains == k)[:, None] for k in range(batch.number)]
    whole = DomainBatch(batch.domains, batch.counts)
    return Evidence(
        losses=mean(own),
        entropies=mean(entropy),
        weights=whole.weights("tokens" if by_tokens else "equal").to(own),
        counts=batch.counts.to(own),
        step=step,
        tokens=[DomainTokens(hidden[0][:, :-1][p], logits[p], targets[p]) for p in places],
    )
