"""Study 5: facts of chemistry, taught to a real language model over learning rates.

The demo's task: a question with four options, answered by an option's text; the teacher is shown
the answer. With LoRA and the whole of `PGPOTrainer`; accuracy on questions that training never
shows, greedily. The facts in them are those of training, among other options.

Settings of a run: `model`, as `models.resolve_model` takes it; `questions` to train on and
`test_questions`; `steps`, 0 for the model as it is; `prompts` and `rollouts` a step; `lora_rank`;
`lora_layers`, PEFT's pattern of modules, all linear ones without it; `new_tokens` of an answer; and
any argument of `PGPOConfig`.

Figures: accuracy, the share of answers that name an option, rewards and multipliers.
"""

from __future__ import annotations

from typing import Any

from ._settings import require_arguments, require_counts
from .science import arguments, train_and_ask

SIZES = ("questions", "test_questions")
OWN = (*SIZES, "lora_layers")
COUNTS = ("seed", *SIZES, "prompts", "rollouts", "lora_rank", "new_tokens")


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
    from poise.evaluate.ask import Sampling
    from poise.trl.guards import NonFiniteTrainingError

    from ..tasks import chemistry

    def rows(split: str, count: int) -> Any:
        return chemistry.load("chemistry", split, count, config["seed"], style="bare")

    questions, tests = rows("train", config["questions"]), rows("test", config["test_questions"])
    sampling = Sampling(k=1, temperature=0.0, max_new_tokens=8, stop=("\n",))
    try:
        return train_and_ask(config, _arguments, questions, tests.to_list(), sampling)
    except NonFiniteTrainingError:  # a run that diverges is a result
        return {"accuracy": 0.0, "answered": 0.0}


def _arguments(config: dict[str, Any], folder: str) -> Any:
    return arguments({k: v for k, v in config.items() if k not in OWN}, folder)
