"""Questions, prompts and rewards. Importing this is light: no torch, no datasets library."""

from .prompts import STYLES, PromptStyle, render, render_all
from .question import LETTERS, LEVELS, Question
from .rewards import extract_answer, multiple_choice_feedback_reward, multiple_choice_reward
from .science import DOMAINS, generate

__all__ = [
    "DOMAINS",
    "LETTERS",
    "LEVELS",
    "STYLES",
    "PromptStyle",
    "Question",
    "extract_answer",
    "generate",
    "multiple_choice_feedback_reward",
    "multiple_choice_reward",
    "render",
    "render_all",
]
