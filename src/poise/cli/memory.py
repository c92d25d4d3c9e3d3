"""`poise memory`: what a training run needs on each GPU, before it is started."""

from __future__ import annotations

_USAGE = """usage: poise memory pgpo|iga [--flags] [--config FILE.yaml]

Count what `poise pgpo` or `poise iga` with the same flags needs on each GPU: weights, gradients,
the optimizer's state, the teacher, the loss's tensors, layers' activations, rollouts. Nothing is
loaded but the model's configuration, and no GPU is needed. Flags of `accelerate launch`, such as
--num_processes 8 or --accelerate_config FILE, say where things lie. No data are read: for IGA on
your own file also name the domains by --iga_domains.

  poise memory pgpo --config examples/pgpo_paper.yaml \\
    --accelerate_config examples/engines/fsdp2.yaml --num_processes 8

Products are taken to be in bfloat16, unless --bf16 false says otherwise."""


def main(argv: list[str]) -> int:
    """Run the command."""
    if not argv or {"-h", "--help"} & set(argv):
        print(_USAGE)
        return 0 if argv else 2
    from .memory_parts import count, table

    print(table(*count(argv)))
    return 0
