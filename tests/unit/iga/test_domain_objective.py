"""An objective takes the place of sum_k w_k L_k."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, one_hot

from poise.iga.domains import Weights
from poise.iga.loss import DomainObjective, domain_means
from poise.iga.method import Evidence, Objective
from tests.exact import ROUNDING
from tests.invariants.iga_worker import make_trainer
from tests.tiny import EXACT
from tests.unit.iga.test_loss import BATCH, PER_TOKEN


@dataclass(kw_only=True)
class _Sample(Objective):
    """Something that is not linear in what it is told."""

    def __call__(self, evidence: Evidence) -> Tensor:
        self.seen = evidence
        return evidence.mean(evidence.losses.square() + evidence.entropies)


@pytest.mark.parametrize("by", ["equal", "tokens"])
def test_an_objective_gets_means_weights_counts_and_the_step(by: Weights) -> None:
    objective, per_token = _Sample(), PER_TOKEN.clone()
    losses, entropies = domain_means(per_token, BATCH), domain_means(per_token.sqrt(), BATCH)
    make = DomainObjective(objective, torch.nn.Identity(), by)
    found = make(losses, entropies, torch.zeros(5, 5), BATCH, 7)
    seen = objective.seen
    assert (seen.step, seen.counts.tolist(), seen.weights.tolist()) == (7, [5, 0, 5], [0.5, 0, 0.5])
    assert seen.tokens == ()
    expected = torch.stack([0.5 * (losses[k] ** 2 + entropies[k]) for k in (0, 2)]).sum()
    torch.testing.assert_close(found, expected)


# In the trainer: one step by plain SGD with rate 1 is the gradient.

BARE: dict[str, Any] = {
    "optim": "sgd",
    "learning_rate": 1.0,
    "lr_scheduler_type": "constant",
    "max_grad_norm": 0.0,
    "max_steps": 1,
    "train_sampling_strategy": "sequential",
    "shuffle_dataset": False,
    "lora_dropout": 0.0,
}


def _irm(logits: Tensor, targets: Tensor, _hidden: Tensor) -> Tensor:
    scale = torch.ones((), requires_grad=True)
    loss = cross_entropy(scale * logits, targets)
    return torch.autograd.grad(loss, scale, create_graph=True)[0]


def _vrex(logits: Tensor, targets: Tensor, _hidden: Tensor) -> Tensor:
    return cross_entropy(logits, targets)


def _fishr(logits: Tensor, targets: Tensor, hidden: Tensor) -> Tensor:
    residuals = logits.softmax(-1) - one_hot(targets, logits.shape[-1])
    return torch.einsum("tv,th->tvh", residuals, hidden).var(0, correction=0)


def _penalty(name: str, per_domain: list[Tensor]) -> Tensor:
    stacked = torch.stack(per_domain)
    centre = 0.0 if name == "irm" else stacked.mean(0)
    return (stacked - centre).square().sum() / len(stacked)


FORMULAS: dict[str, tuple[Any, dict[str, Any]]] = {
    "irm": (_irm, {"penalty_weight": 5.0}),
    "vrex": (_vrex, {"penalty_weight": 500.0}),
    "fishr": (_fishr, {"penalty_weight": 50.0, "relative": False}),
}


@pytest.mark.parametrize("name", FORMULAS)
def test_a_training_step_is_along_the_formula_of_full_logits(
    name: str, tmp_path: Path, exact_model_path: str, float64: None
) -> None:
    formula, options = FORMULAS[name]
    strength = options["penalty_weight"]
    settings = EXACT | BARE | {"method": name, "method_options": options | {"warmup_steps": 0}}
    trainer = make_trainer(exact_model_path, str(tmp_path / "run"), **settings)
    parameters = {n: p for n, p in trainer.model.named_parameters() if p.requires_grad}
    generator = torch.Generator().manual_seed(0)
    for parameter in parameters.values():
        parameter.data = torch.randn(parameter.shape, generator=generator).double() * 0.1

    losses, parts = _by_domain(trainer, formula)
    plain, penalty = torch.stack(losses).mean(), strength * _penalty(name, parts)
    # The penalty counts, or this would be a test of plain fine-tuning.
    assert penalty.item() > 0.05 * plain.item()
    gradients = torch.autograd.grad(plain + penalty, list(parameters.values()))
    before = [p.detach().clone() for p in parameters.values()]
    trainer.train()
    for parameter, start, gradient in zip(parameters.values(), before, gradients, strict=True):
        assert (start - parameter.detach() - gradient).norm() <= ROUNDING * gradient.norm()
    logged = trainer.state.log_history[0]
    assert logged["loss"] == pytest.approx((plain + penalty).item(), rel=ROUNDING)
    assert logged["iga/penalty"] == pytest.approx(penalty.item() / strength, rel=ROUNDING)


def _by_domain(trainer: Any, formula: Any) -> tuple[list[Tensor], list[Tensor]]:
    """Mean losses and the formula's values of each domain, of the first four sets."""
    sets: Any = trainer.train_dataset
    inputs = trainer.data_collator([sets[i] for i in range(4)])
    domains, labels = inputs.pop("domain"), inputs.pop("labels")
    outputs = trainer.model(**inputs, output_hidden_states=True)
    losses, values = [], []
    for k in range(3):
        kept = labels[domains == k, 1:] != -100
        logits, hidden = (
            t[domains == k, :-1][kept] for t in (outputs.logits, outputs.hidden_states[-1])
        )
        targets = labels[domains == k, 1:][kept]
        losses.append(cross_entropy(logits, targets))
        values.append(formula(logits, targets, hidden))
    return losses, values
