"""`load_questions("science:physics", ...)`, once this is imported."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from poise.data.load import DEFAULT_COUNT, register
from poise.data.prompts import get_style, render_all

from .generate import generate
from .registry import COMPUTED_LEVELS, DOMAINS

if TYPE_CHECKING:
    from datasets import Dataset


@register("science")
def load_science(
    rest: str,
    split: str,
    levels: Sequence[int] = COMPUTED_LEVELS,
    count: int = DEFAULT_COUNT,
    seed: int = 0,
    style: str = "chat",
) -> Dataset:
    """Generated questions; `rest` names domains, parted by commas, or none for all."""
    from datasets import Dataset

    get_style(style)
    domains = [part.strip() for part in rest.split(",") if part.strip()] or DOMAINS
    return Dataset.from_list(render_all(generate(domains, levels, count, split, seed), style))
