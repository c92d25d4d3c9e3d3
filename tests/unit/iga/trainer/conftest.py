"""Builds trainers of the tiny model on tiny isomers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from datasets import Dataset
from peft import LoraConfig
from torch import Tensor

from poise import IGATrainer
from tests.tiny import tiny_isomers

# Plain SGD with rate 1 and without clipping: the step is the gradient.
BARE: dict[str, Any] = {"optim": "sgd", "learning_rate": 1.0, "max_grad_norm": 0.0, "max_steps": 1}


@pytest.fixture
def make(
    make_iga_config: Callable[..., Any],
    tiny_model_path: str,
    exact_model_path: str,
    request: pytest.FixtureRequest,
) -> Callable[..., IGATrainer]:
    model = exact_model_path if "float64" in request.fixturenames else tiny_model_path

    def build(
        rows: Dataset | None = None, arguments: dict[str, Any] | None = None, **settings: Any
    ) -> IGATrainer:
        return IGATrainer(
            model=model,
            args=make_iga_config(**settings),
            train_dataset=tiny_isomers() if rows is None else rows,
            peft_config=LoraConfig(r=2, target_modules="all-linear"),
            **arguments or {},
        )

    return build


def trained(trainer: IGATrainer) -> dict[str, Tensor]:
    parameters = trainer.model.named_parameters()
    return {n: p.detach().clone() for n, p in parameters if p.requires_grad}


def train(trainer: IGATrainer) -> dict[str, Tensor]:
    trainer.train()
    return trained(trainer)
