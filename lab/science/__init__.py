"""Science questions made by code: chemistry, physics, biology and materials."""

from . import biology, chemistry, level_one, materials, physics, recall
from .generate import generate
from .registry import DOMAINS, TEMPLATES, Draft, Template, template, templates

__all__ = [
    "DOMAINS",
    "TEMPLATES",
    "Draft",
    "Template",
    "biology",
    "chemistry",
    "generate",
    "level_one",
    "materials",
    "physics",
    "recall",
    "template",
    "templates",
]
