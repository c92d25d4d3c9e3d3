"""`--help` of training commands: Poise's own arguments and the most used of TRL's.

They are read from the source, since importing TRL takes ten seconds; `--help-all` imports it.
"""

from __future__ import annotations

import ast
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_PACKAGE = Path(__file__).parents[1]
_WIDTH, _INDENT = 96, 30


@dataclass(frozen=True)
class Section:
    """Arguments that are a class's fields: `name: type = option(default, "help")`."""

    title: str
    file: str
    name: str


PAGES = {
    "pgpo": (
        "Train a model by physics-guided policy optimization.",
        Section("questions", "cli/pgpo.py", "PGPOScriptArguments"),
        Section("PGPO", "pgpo/config.py", "PGPOConfig"),
    ),
    "iga": (
        "Fine-tune a model by invariant gradient alignment on logical isomers.",
        Section("isomers", "cli/iga.py", "IGAScriptArguments"),
        Section("IGA", "iga/config.py", "IGAConfig"),
    ),
}
# Of TRL's and of accelerate's launcher.
USUAL = {
    "model_name_or_path": "A folder, a hub id, or 'default' for the embedded model.",
    "output_dir": "The run folder.",
    "use_peft": "Train a LoRA adapter (lora_r, lora_alpha, lora_target_modules).",
    "learning_rate": "Peak learning rate (lr_scheduler_type, warmup_steps).",
    "max_steps": "Optimizer steps; by default num_train_epochs decides.",
    "per_device_train_batch_size": "Sequences of a micro-batch; of PGPO, rollouts.",
    "gradient_accumulation_steps": "Micro-batches of a step.",
    "num_generations": "Rollouts of a question.",
    "max_completion_length": "Longest rollout in tokens.",
    "max_length": "Longest sequence in tokens.",
    "dtype": "Precision of the weights; by default what the machine is quick in.",
    "bf16": "Whether products are in bfloat16; by default where the machine is quick in it.",
    "save_steps": "Steps between checkpoints.",
    "resume_from_checkpoint": "'true' goes on with the run in output_dir.",
    "seed": "Of everything random.",
    "num_processes": "Processes, a GPU each, or all on the CPU where there is none.",
}
_ONLY = {"num_generations": "pgpo", "max_completion_length": "pgpo", "max_length": "iga"}


def page(command: str) -> str:
    """The text for one of `PAGES`."""
    text, *sections = PAGES[command]
    parts = [f"usage: poise {command} [--flags] [--config FILE.yaml]", str(text)]
    for section in sections:
        assert isinstance(section, Section)
        lines = [_line(*found) for found in options(section)]
        parts.append("\n".join([f"{section.title}:", *lines]))
    fitting = {name: text for name, text in USUAL.items() if _ONLY.get(name, command) == command}
    usual = [_line(name, "", text) for name, text in fitting.items()]
    parts.append("\n".join(["most used of TRL's and accelerate's:", *usual]))
    parts.append(f"`poise {command} --help-all` lists all of them. FILE.yaml may hold any of them.")
    return "\n\n".join(parts)


def options(section: Section) -> Iterator[tuple[str, str, str]]:
    """Name, default and help of each argument."""
    tree = ast.parse((_PACKAGE / section.file).read_text(encoding="utf-8"))
    classes = [node for node in tree.body if isinstance(node, ast.ClassDef)]
    (body,) = [node.body for node in classes if node.name == section.name]
    for field in body:
        if not (isinstance(field, ast.AnnAssign) and isinstance(field.value, ast.Call)):
            continue
        default, text, *_ = field.value.args
        yield ast.unparse(field.target), ast.unparse(default), _text(text)


def _text(node: ast.expr) -> str:
    """A sum of strings; what else is put in is known to `--help-all`."""
    if isinstance(node, ast.BinOp):
        return _text(node.left) + _text(node.right)
    return str(node.value) if isinstance(node, ast.Constant) else "..."


def _line(name: str, default: str, text: str) -> str:
    text = text.replace("%%", "%") + (
        f" Default: {default}." if default not in ("", "''", "None") else ""
    )
    first = f"  --{name}".ljust(_INDENT)
    lines = textwrap.wrap(
        text, _WIDTH, initial_indent=" " * _INDENT, subsequent_indent=" " * _INDENT
    )
    if len(first) > _INDENT:
        return "\n".join([first, *lines])
    return "\n".join([first + lines[0][_INDENT:], *lines[1:]])
