"""Poise: stable and robust LLM post-training."""

__version__ = "0.1.0"
