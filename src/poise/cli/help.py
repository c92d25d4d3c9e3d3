"""`--help` of training commands: Poise's own arguments and twenty of TRL's.

They are read from the source, since importing TRL takes ten seconds; `--help-all` imports it.
"""

from __future__ import annotations

import argparse
import ast
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

_PACKAGE = Path(__file__).parents[1]
# TRL's and accelerate's that matter: of both commands, and of one.
USUAL = {
    "model_name_or_path": "A folder, a hub id, or 'default' for the embedded model.",
    "output_dir": "The run folder.",
    "use_peft": "Train a LoRA adapter (lora_r, lora_alpha, lora_target_modules).",
    "learning_rate": "Peak learning rate (lr_scheduler_type, warmup_steps).",
    "max_steps": "Optimizer steps; by default num_train_epochs decides.",
    "per_device_train_batch_size": "Sequences of a micro-batch; of PGPO, rollouts.",
    "gradient_accumulation_steps": "Micro-batches of a step.",
    "gradient_checkpointing": "Whether activations are computed again, which saves memory.",
    "dtype": "Precision of the weights; by default what the machine is quick in.",
    "bf16": "Whether products are in bfloat16; by default where the machine is quick in it.",
    "logging_steps": "Steps between lines of metrics.jsonl (report_to).",
    "save_steps": "Steps between checkpoints (save_total_limit).",
    "resume_from_checkpoint": "'true' goes on with the run in output_dir; 'auto' may begin it.",
    "seed": "Of everything random.",
    "num_processes": "Processes, a GPU each, or all on the CPU where there is none.",
    "accelerate_config": "A file as `accelerate config` writes it, for FSDP2, DeepSpeed or several "
    "nodes; examples/engines/ has some.",
}
_ROLLOUTS = {
    "num_generations": "Rollouts of a question.",
    "max_prompt_length": "Longest prompt in tokens.",
    "max_completion_length": "Longest rollout in tokens.",
    "temperature": "Of rollouts.",
    "chat_template_kwargs": "What chat templates take, e.g. '{\"enable_thinking\": false}'.",
}
_MEMORY = """usage: poise memory pgpo|iga [--flags] [--config FILE.yaml]

Count what `poise pgpo` or `poise iga` with the same flags needs on each GPU: weights, gradients,
the optimizer's state, the teacher, the loss's tensors, layers' activations, rollouts. Nothing is
loaded but the model's configuration, and no GPU is needed. Flags of `accelerate launch`, such as
--num_processes 8 or --accelerate_config FILE, say where things lie. No data are read: for IGA on
your own file also name the domains by --iga_domains.

  poise memory pgpo --config examples/pgpo_paper.yaml \\
    --accelerate_config examples/engines/fsdp2.yaml --num_processes 8

Products are taken to be in bfloat16, unless --bf16 false says otherwise."""
# Command -> its page; or what it does, title, file and class of its arguments, and those of TRL's
# beside `USUAL`.
PAGES: dict[str, Any] = {
    "memory": _MEMORY,
    "pgpo": (
        "Train a model by physics-guided policy optimization.",
        {"questions": "cli/pgpo.py:PGPOScriptArguments", "PGPO": "pgpo/config.py:PGPOConfig"},
        _ROLLOUTS,
    ),
    "iga": (
        "Fine-tune a model by invariant gradient alignment on logical isomers.",
        {"isomers": "cli/iga.py:IGAScriptArguments", "IGA": "iga/config.py:IGAConfig"},
        {"max_length": "Longest sequence in tokens."},
    ),
}


def page(command: str) -> str:
    """The text for one of `PAGES`."""
    if isinstance(PAGES[command], str):
        return str(PAGES[command])
    text, sections, usual = PAGES[command]
    parser = argparse.ArgumentParser(
        usage=f"poise {command} [--flags] [--config FILE.yaml]",
        description=text,
        epilog=f"`poise {command} --help-all` lists all of them. FILE.yaml may hold any of them.",
        add_help=False,
        formatter_class=partial(argparse.HelpFormatter, max_help_position=30, width=96),
    )
    for title, place in sections.items():
        group = parser.add_argument_group(title)
        for name, default, about in _options(place):
            if default not in ("", "''", "None"):
                about += f" Default: {default}."
            group.add_argument(f"--{name}", help=about, action="store_true")
    group = parser.add_argument_group("most used of TRL's and accelerate's")
    for name, about in (USUAL | usual).items():
        group.add_argument(f"--{name}", help=about, action="store_true")
    return parser.format_help().rstrip()


def _options(place: str) -> Iterator[tuple[str, str, str]]:
    """Name, default and help of each field `name: type = option(default, "help")` of a class."""
    file, _, name = place.partition(":")
    tree = ast.parse((_PACKAGE / file).read_text(encoding="utf-8"))
    (found,) = [n for n in tree.body if isinstance(n, ast.ClassDef) and n.name == name]
    for field in found.body:
        if isinstance(field, ast.AnnAssign) and isinstance(field.value, ast.Call):
            default, text, *_ = field.value.args
            yield ast.unparse(field.target), ast.unparse(default), _text(text)


def _text(node: ast.expr) -> str:
    """A sum of strings; `--help-all` shows what else it holds."""
    if isinstance(node, ast.BinOp):
        return _text(node.left) + _text(node.right)
    return str(node.value) if isinstance(node, ast.Constant) else "..."
