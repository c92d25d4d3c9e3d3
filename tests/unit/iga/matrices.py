"""Random matrices, the same in every run."""

from __future__ import annotations

from typing import Any

import torch
from hypothesis import settings
from torch import Tensor

quick = settings(deadline=None, max_examples=40)


def normal(*shape: int, seed: int = 0, dtype: Any = torch.float64) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)
