"""Questions, prompts and rewards. Importing this is light: no torch, no datasets library."""

from .load import load_questions
from .prompts import STYLES, PromptStyle, render, render_all
from .question import COMPUTED_LEVELS, LETTERS, LEVELS, Question
from .reasoning_gym import reasoning_gym_reward
from .rewards import extract_answer, multiple_choice_feedback_reward, multiple_choice_reward
from .science import DOMAINS, generate
from .validation import check_dataset, read_jsonl

__all__ = [
    "COMPUTED_LEVELS",
    "DOMAINS",
    "LETTERS",
    "LEVELS",
    "STYLES",
    "PromptStyle",
    "Question",
    "check_dataset",
    "extract_answer",
    "generate",
    "load_questions",
    "multiple_choice_feedback_reward",
    "multiple_choice_reward",
    "read_jsonl",
    "reasoning_gym_reward",
    "render",
    "render_all",
]
