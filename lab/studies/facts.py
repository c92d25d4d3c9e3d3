"""Study 5: facts of chemistry, taught to a real language model over learning rates.

The demo's task: a question with four options, answered by an option's text; the teacher is shown
the answer. With LoRA and the whole of `PGPOTrainer`; accuracy on questions that training never
shows, greedily. The facts in them are those of training, among other options.

Settings of a run: `model`, as `models.resolve_model` takes it; `questions` to train on and
`test_questions`; `steps`, 0 for the model as it is; `prompts` and `rollouts` a step; `lora_rank`;
`new_tokens` of an answer; and any argument of `PGPOConfig`.

Figures: accuracy, the share of answers that name an option, rewards and multipliers.
"""

from __future__ import annotations

import tempfile
from typing import Any

from ._logs import pgpo_figures
from ._settings import require_arguments, require_counts
from .science import arguments, score

LOADS_MODEL = True
COUNTS = (
    "seed",
    "questions",
    "test_questions",
    "prompts",
    "rollouts",
    "lora_rank",
    "new_tokens",
)
OWN = ("questions", "test_questions")
DATA: dict[str, Any] = {"rest": "chemistry", "levels": [0], "style": "bare"}


def check(config: dict[str, Any]) -> None:
    """Refuse what the study or the trainer does not take.

    Raises:
        ValueError: a setting of the study is missing or outside its range, or the trainer's
            configuration refuses one.
    """
    require_counts(config, COUNTS if config.get("steps") == 0 else ("steps", *COUNTS))
    require_arguments(config, _arguments)


def run(config: dict[str, Any]) -> dict[str, Any]:
    """One run and its figures."""
    from peft import LoraConfig
    from transformers import set_seed

    from poise import PGPOTrainer
    from poise.demo.learning import hide_bars, quieten
    from poise.evaluate.ask import Sampling
    from poise.models import resolve_model
    from poise.rewards import multiple_choice_reward
    from poise.trl.guards import NonFiniteTrainingError

    from ..science.source import load_science
    from ..tasks.asking import ask

    hide_bars()
    seed, rank = config["seed"], config["lora_rank"]
    set_seed(seed)  # of the adapter's factors too
    tests = load_science(**DATA, split="test", seed=seed, count=config["test_questions"])
    with tempfile.TemporaryDirectory() as folder:
        trainer = PGPOTrainer(
            model=resolve_model(config.get("model")),
            reward_funcs=multiple_choice_reward,
            args=_arguments(config, folder),
            train_dataset=load_science(**DATA, split="train", seed=seed, count=config["questions"]),
            peft_config=LoraConfig(r=rank, lora_alpha=2 * rank, target_modules="all-linear"),
        )
        quieten(trainer)
        if config["steps"]:
            try:
                trainer.train()
            except NonFiniteTrainingError:  # a run that diverges is a result
                return {"accuracy": 0.0, "answered": 0.0}
    sampling = Sampling(k=1, temperature=0.0, max_new_tokens=8, stop=("\n",))
    records = ask(trainer.model, trainer.processing_class, tests.to_list(), sampling, seed)
    logged = pgpo_figures(trainer.state.log_history) if config["steps"] else {}
    return score(records) | logged


def _arguments(config: dict[str, Any], folder: str) -> Any:
    return arguments({k: v for k, v in config.items() if k not in OWN}, folder)
