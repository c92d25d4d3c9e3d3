"""Is the cipher a task in which feedback can show what it is worth? Figures before any method.

Three shares, of which `experiments/feedback_validity` has the rule: `start`, sampled answers of the
untrained model that are right; `teacher`, right answers of the same model when it is shown its own
failed attempt as it is marked, sampled too; `supervised`, greedy answers to unseen questions after
training on the right answers themselves, the oracle.

Settings of a run: `questions`, on each of which one answer is sampled; `steps` of the supervised
training, `rows` in each.
"""

from __future__ import annotations

import statistics
from typing import Any

from ..tasks import cipher
from ._settings import require_counts

COUNTS = ("seed", "questions", "steps", "rows")
_RATE, _LENGTH = 1e-3, cipher.LENGTH + 1  # tokens of an answer with its end


def check(config: dict[str, Any]) -> None:
    """Refuse what the study does not take.

    Raises:
        ValueError: a setting is missing or outside its range, or is none of the study's.
    """
    require_counts(config, COUNTS)
    if unknown := set(config) - {"method", *COUNTS}:
        raise ValueError(f"expected {', '.join(COUNTS)}, found {', '.join(sorted(unknown))}")


def run(config: dict[str, Any]) -> dict[str, Any]:
    """One seed's figures."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from ..tasks.accuracy import answers

    folder = cipher.model_folder(config["seed"])
    model = AutoModelForCausalLM.from_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    questions = cipher.problems(config["questions"], config["seed"], "train")
    right = [question["answer"] for question in questions]
    prompts = [question["prompt"] for question in questions]
    torch.manual_seed(config["seed"])

    scored = cipher.reward(answers(model, tokenizer, prompts, _LENGTH, sample=True), right)
    failed = [i for i, (value, _) in enumerate(scored) if not value]
    shown = [_shown(prompts[i], scored[i][1] or "") for i in failed]
    taught = answers(model, tokenizer, shown, _LENGTH, sample=True)
    unseen = cipher.problems(config["questions"], config["seed"], "test")
    return {
        "start": _mean(scored),
        "teacher": _mean(cipher.reward(taught, [right[i] for i in failed])),
        "supervised": _supervised(model, tokenizer, questions, unseen, config),
    }


def _shown(prompt: str, text: str) -> str:
    """The teacher's prompt, as the trainer puts it together."""
    feedback = cipher.TEMPLATES["feedback_template"].format(feedback_raw=text)
    return str(cipher.TEMPLATES["reprompt_template"].format(feedback=feedback, prompt=prompt))


def _mean(scored: list[tuple[float, str | None]]) -> float:
    return statistics.fmean(value for value, _ in scored)


def _supervised(
    model: Any,
    tokenizer: Any,
    questions: list[dict[str, str]],
    unseen: list[dict[str, str]],
    config: dict[str, Any],
) -> float:
    import torch

    from poise.demo.tiny_model import encode

    from ..tasks.accuracy import answers

    optimizer = torch.optim.AdamW(model.parameters(), lr=_RATE)
    model.train()
    for step in range(config["steps"]):
        places = range(step * config["rows"], (step + 1) * config["rows"])
        rows = [questions[place % len(questions)] for place in places]
        ids, labels = encode(tokenizer, [(row["prompt"], row["answer"]) for row in rows])
        model(input_ids=ids, labels=labels).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    found = answers(model, tokenizer, [row["prompt"] for row in unseen], _LENGTH)
    return _mean(cipher.reward(found, [row["answer"] for row in unseen]))
