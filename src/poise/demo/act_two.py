"""IGA beside plain LoRA on a toy task with a shortcut: a part of experiments/shortcut."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

from ..iga.config import IGAConfig
from . import ranking
from .learning import AnswerCurve, learn
from .pool import Tell

_SIZE, _MODEL_SEED = ranking.SIZES["places"], 1
_DOMAINS = _SIZE.domains[:4]
_SETS = 800  # to train on, eight a step: none is seen three times
_TEST_SETS = 40
_LORA_RANK = 4
_SETTING: dict[str, Any] = {
    "max_steps": 200,
    "per_device_train_batch_size": 8 * len(_DOMAINS),
    "learning_rate": 2.0e-2,
    "lr_scheduler_type": "linear",
    "domain_weights": "equal",
    "gradient_checkpointing": False,
    "bf16": False,
    "use_cpu": True,
    "logging_steps": 200,
    "save_strategy": "no",
    "report_to": "none",
    "disable_tqdm": True,
}
# Name -> setting, and the share of the time at which it begins.
_ARMS: dict[str, tuple[dict[str, Any], float]] = {
    "plain LoRA": ({"iga_method": "erm"}, 0.0),
    "IGA": ({"iga_space": "direction"}, 0.45),
}
_TESTS = {
    "in_distribution": "with the shortcut, as in training",
    "no_cue": "without it",
    "unseen_phrasings": "without it, in an unseen phrasing",
    "reversed": "the shortcut points to a wrong answer",
}


def make_model(tell: Tell) -> None:
    """Train the toy model from scratch, unless it is there."""
    ranking.model_folder(_MODEL_SEED, _SIZE, lambda share: tell(share, "from scratch"))


def learn_isomers(tell: Tell, *, output: Path, seed: int) -> None:
    """Train the toy model by plain LoRA and by IGA; accuracies (0 to 1) by method and test go to a
    file."""
    if output.is_file():
        return
    model = ranking.model_folder(_MODEL_SEED, _SIZE)
    rows = ranking.isomers(_SETS, seed, "train", _DOMAINS, strength=1.0)
    tests = ranking.tests(_TEST_SETS, seed, _DOMAINS, 1.0, _SIZE.held_out)
    accuracy = {}
    for name, (arm, begin) in _ARMS.items():
        tell(begin, name)
        curve = AnswerCurve(tests, _SETTING["max_steps"])
        make = partial(IGAConfig, **_SETTING | arm | {"seed": seed})
        figures = learn(model, rows, curve, make, _LORA_RANK)
        accuracy[name] = {title: figures[f"{test}/accuracy"] for test, title in _TESTS.items()}
    part = output.with_suffix(".part")
    part.write_text(json.dumps({"seed": seed, "accuracy": accuracy}))
    part.replace(output)
