"""Shortcuts that a student might find: words of the prompt, places and marks of options."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from poise.isomers.forms import Row

MARKS = ("said", "recorded", '"', "#")
VOCABULARY = 300


def bag_of_words(prompts: Sequence[str]) -> Tensor:
    """Counts of the most frequent words and signs, (prompts, words)."""
    bags = [Counter(re.findall(r"[^\W\d_]+|[^\w\s]", prompt.casefold())) for prompt in prompts]
    frequent = sum(bags, Counter()).most_common(VOCABULARY)
    return torch.tensor([[float(bag[word]) for word, _ in frequent] for bag in bags])


def shown_options(row: Row) -> list[str]:
    """The options as the prompt lists them."""
    [line] = re.findall(r"^Options: (.*)$", row["prompt"], re.MULTILINE)
    return list(line.split(", "))


def marks(rows: Sequence[Row]) -> Tensor:
    """Which mark each option bears, (rows, 4 * marks)."""
    listed = [(shown_options(row) + [""] * 4)[:4] for row in rows]
    return torch.tensor([[float(mark in o) for o in shown for mark in MARKS] for shown in listed])


def answer_places(rows: Sequence[Row]) -> Tensor:
    """Where in the list the right answer stands."""
    return torch.tensor([row["options"].index(row["answer_text"]) for row in rows])


def predict(features: Tensor, labels: Tensor, new: Tensor) -> Tensor:
    """Labels of new rows by logistic regression, with a little weight decay."""
    mean, scale = features.mean(0), features.std(0) + 1e-3
    features, new = (features - mean) / scale, (new - mean) / scale
    layer = torch.nn.Linear(features.shape[1], int(labels.max()) + 1)
    torch.nn.init.zeros_(layer.weight)
    optimizer = torch.optim.LBFGS(layer.parameters(), max_iter=60)

    def loss() -> Tensor:
        optimizer.zero_grad()
        value = torch.nn.functional.cross_entropy(layer(features), labels)
        value = value + 1e-2 * layer.weight.square().sum()
        value.backward()
        return value

    optimizer.step(loss)
    with torch.no_grad():
        return layer(new).argmax(1)


def held_out_hits(features: Tensor, labels: Tensor) -> np.ndarray:
    """Which labels of the second half are right, learned from the first half."""
    half = len(labels) // 2
    found = predict(features[:half], labels[:half], features[half:])
    return (found == labels[half:]).numpy()


def surprise(hits: np.ndarray, chances: np.ndarray) -> float:
    """Standard deviations by which hits exceed independent guesses with these chances."""
    spread = np.sqrt((chances * (1 - chances)).sum())
    return float((hits.sum() - chances.sum()) / spread)
