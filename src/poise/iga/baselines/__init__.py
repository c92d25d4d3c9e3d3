"""What IGA is compared with: other methods for several domains, by name.

A new one is a file here and a line in `BASELINES`.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

from ..settings import Aggregator, Objective
from .fishr import Fishr
from .group_dro import GroupDRO
from .irm import IRM
from .sign_masks import ANDMask, SANDMask
from .torchjd_aggregator import PCGrad, TorchJD
from .vrex import VREx

Baseline = Objective | Aggregator

# None is empirical risk minimisation: sum_k w_k L_k, plain fine-tuning on the same batches.
BASELINES: dict[str, type[Objective] | type[Aggregator] | None] = {
    "erm": None,
    "irm": IRM,
    "vrex": VREx,
    "group_dro": GroupDRO,
    "fishr": Fishr,
    "and_mask": ANDMask,
    "sand_mask": SANDMask,
    "pcgrad": PCGrad,
}
OTHERS = "torchjd:"  # before the name of one of TorchJD's aggregators


def make_baseline(
    name: str, options: Mapping[str, Any] | None = None, domains: int = 1, seed: int = 0
) -> Baseline | None:
    """A baseline by its name; None for "erm".

    Args:
        name: among `BASELINES`, or "torchjd:NAME" for any of TorchJD's aggregators.
        options: fields of its class, or arguments of TorchJD's.
        domains: K.
        seed: of what it draws at random.

    Raises:
        ValueError: an unknown name, an option that it has not, a value outside its range.
        ImportError: a method that needs an extra which is not installed.
    """
    options = options or {}
    if name.startswith(OTHERS):
        member = name.removeprefix(OTHERS)
        return TorchJD(name=member, arguments=options, domains=domains, seed=seed)
    if name not in BASELINES:
        names = ["iga", *BASELINES]
        near = difflib.get_close_matches(name, names, n=1)
        hint = f"did you mean {near[0]!r}?" if near else "choose one of these"
        raise ValueError(
            f"iga_method: expected one of {', '.join(names)}, or {OTHERS}NAME, found {name!r}; "
            f"{hint}"
        )
    kind = BASELINES[name]
    known = () if kind is None else kind.options()
    if unknown := sorted(set(options) - set(known)):
        expected = f"options among {', '.join(known)}" if known else "no options"
        raise ValueError(
            f"iga_method_options: expected {expected} for iga_method {name!r}, found "
            f"{unknown[0]!r}; leave it out, or choose the method that has it"
        )
    return None if kind is None else kind(domains=domains, seed=seed, **options)
