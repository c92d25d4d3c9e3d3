"""An objective takes the place of sum_k w_k L_k."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from poise.iga.baselines import make_baseline
from poise.iga.domains import Weights
from poise.iga.loss import DomainObjective
from poise.iga.settings import DomainTokens, Evidence, Objective, Penalised
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
    losses, entropies = BATCH.means(per_token), BATCH.means(per_token.sqrt())
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


OPTIONS: dict[str, dict[str, Any]] = {
    "irm": {"penalty_weight": 5.0},
    "vrex": {"penalty_weight": 500.0},
    "fishr": {"penalty_weight": 50.0, "relative": False},
}


@pytest.mark.parametrize("name", OPTIONS)
def test_a_training_step_is_along_the_objective_of_full_logits(
    name: str, tmp_path: Path, exact_model_path: str, float64: None
) -> None:
    """The objective itself is compared with its formula in `tests/equivalence`."""
    options = OPTIONS[name] | {"warmup_steps": 0}
    settings = EXACT | BARE | {"method": name, "method_options": options}
    trainer = make_trainer(exact_model_path, str(tmp_path / "run"), **settings)
    parameters = {n: p for n, p in trainer.model.named_parameters() if p.requires_grad}
    generator = torch.Generator().manual_seed(0)
    for parameter in parameters.values():
        parameter.data = torch.randn(parameter.shape, generator=generator).double() * 0.1

    objective, evidence = make_baseline(name, options, 3), _evidence(trainer)
    assert isinstance(objective, Penalised)
    plain, loss = evidence.losses.mean(), objective(evidence)
    # The penalty counts, or this would be a test of plain fine-tuning.
    assert loss.item() > 1.05 * plain.item()
    gradients = torch.autograd.grad(loss, list(parameters.values()))
    before = [p.detach().clone() for p in parameters.values()]
    trainer.train()
    for parameter, start, gradient in zip(parameters.values(), before, gradients, strict=True):
        assert (start - parameter.detach() - gradient).norm() <= ROUNDING * gradient.norm()
    logged, penalty = trainer.state.log_history[0], (loss - plain).item()
    assert logged["loss"] == pytest.approx(loss.item(), rel=ROUNDING)
    assert logged["iga/penalty"] * options["penalty_weight"] == pytest.approx(penalty, rel=ROUNDING)


def _evidence(trainer: Any) -> Evidence:
    """Of the first four sets, from full logits."""
    sets: Any = trainer.train_dataset
    inputs = trainer.data_collator([sets[i] for i in range(4)])
    domains, labels = inputs.pop("domain"), inputs.pop("labels")[:, 1:]
    outputs = trainer.model(**inputs, output_hidden_states=True)
    tokens = []
    for k in range(3):
        kept = (labels != -100) & (domains == k)[:, None]
        logits, hidden = (t[:, :-1][kept] for t in (outputs.logits, outputs.hidden_states[-1]))
        tokens.append(DomainTokens(hidden, logits, labels[kept]))
    log_p = [t.logits.log_softmax(-1) for t in tokens]
    losses = [cross_entropy(t.logits, t.targets) for t in tokens]
    entropies = [-(p.exp() * p).sum(-1).mean() for p in log_p]
    counts = torch.tensor([float(len(t.targets)) for t in tokens])
    thirds = torch.full((3,), 1 / 3)
    return Evidence(torch.stack(losses), torch.stack(entropies), thirds, counts, 0, tokens)
