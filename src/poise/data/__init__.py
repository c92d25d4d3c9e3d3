"""Questions by name, and prompts made of them. Light: no torch, no datasets library."""

from .load import load_questions, register
from .prompts import STYLES, PromptStyle
from .reasoning_gym import reasoning_gym_reward

__all__ = ["STYLES", "PromptStyle", "load_questions", "reasoning_gym_reward", "register"]
