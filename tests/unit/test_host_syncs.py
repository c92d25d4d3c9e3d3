"""The counter of host syncs counts each kind once, also in a backward pass."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.host_syncs import HostSyncs

WAITS: dict[str, tuple[str, Callable[[Tensor], Any]]] = {
    "item": ("item", lambda x: x[0].item()),
    "bool": ("item", lambda x: bool(x.any())),
    "float": ("item", lambda x: float(x.sum())),
    "tolist": ("tolist", lambda x: x.tolist()),
    "numpy": ("numpy", lambda x: x.numpy()),
    "cpu": ("cpu", lambda x: x.cpu()),
    "to": ("cpu", lambda x: x.to("cpu")),
    "to by name": ("cpu", lambda x: x.to(device="cpu", dtype=torch.float64)),
    "nonzero": ("nonzero", lambda x: x.nonzero()),
    "where": ("nonzero", lambda x: torch.where(x > 0)),
    "masked_select": ("masked_select", lambda x: x.masked_select(x > 0)),
    "mask": ("mask", lambda x: x[x > 0]),
    "written mask": ("mask", lambda x: x.clone().index_put_((x > 0,), x[:2])),
    "unique": ("unique", lambda x: x.unique()),
    "eigh": ("eigh", lambda x: torch.linalg.eigh(torch.outer(x, x))),
}


@pytest.mark.parametrize("name", WAITS)
def test_a_wait_is_counted(name: str) -> None:
    kind, wait = WAITS[name]
    with HostSyncs() as syncs:
        wait(torch.arange(3.0))
    assert syncs.counts.pop(kind) >= 1
    assert not syncs.counts


def test_what_does_not_wait_is_not_counted() -> None:
    x = torch.arange(3.0, requires_grad=True)
    with HostSyncs() as syncs:
        y = (x.to(x.device) * 2)[torch.tensor([0, 2])]
        z = torch.where(y > 0, y, 0.0)
        z[z > 1] = 0.5
        z.sum().backward()
    assert not syncs.counts


def test_waits_of_hooks_in_the_backward_are_counted() -> None:
    x = torch.arange(3.0, requires_grad=True)
    x.register_hook(lambda gradient: gradient.cpu() * float(gradient.sum()))
    with HostSyncs() as syncs:
        x.square().sum().backward()
    assert syncs.counts == {"item": 1, "cpu": 1}
