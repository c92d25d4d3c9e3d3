"""Which extra of Poise brings a library that is not installed."""

from __future__ import annotations

# Extra -> what it adds, as Python imports it.
EXTRAS = {
    "train": (
        *("trl", "transformers", "peft", "accelerate", "datasets"),
        *("safetensors", "yaml", "tqdm", "rich", "xxhash"),
    ),
    "eval": ("numpy", "scipy", "matplotlib", "jinja2"),
    "build": ("openai",),
    "bench": ("filelock", "statsmodels"),
    "vllm": ("vllm",),
}


def what_to_install(error: BaseException) -> str | None:
    """What to say of a failed import: the extra that brings the library; None for other errors."""
    name = error.name if isinstance(error, ModuleNotFoundError) else None
    for extra, modules in EXTRAS.items():
        if name in modules:
            return f'{name} is not installed; run pip install "poise[{extra}]"'
    return None
