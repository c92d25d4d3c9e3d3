"""Checks of everything that a user hands to `IGATrainer`, before anything expensive starts."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from datasets import Dataset
from torch.optim import SGD

from ..isomers.rows import MASKS, TOKENS, name_of_test, required
from ..optimizers import refuse_steps_in_backward
from ..rows import check_columns, check_dataset
from ..trl.preflight import (
    check_adapter,
    check_installed,
    check_output_folder,
    find_model,
    refuse_data_parallel,
    refuse_sharded_model,
    refuse_spread_model,
)
from .batches import DOMAIN, SET
from .config import GRADIENTS, IGAConfig

logger = logging.getLogger(__name__)


def check_before_loading(
    model: Any, args: IGAConfig, train_dataset: Any, eval_dataset: Any, host: dict[str, Any]
) -> tuple[Any, tuple[str, ...]]:
    """Checks that need no model, of the trainer's arguments; `host` are those handed on to TRL.

    Returns:
        The model, or what its name stands for; and the domains, in the order of their numbers.

    Raises:
        TypeError: arguments of another trainer, or a data set of another kind.
        ValueError: an argument of TRL's that IGA cannot serve, rows that cannot be trained or
            evaluated on, a setting that cannot work, a path that is not a model.
        OSError: an output folder that cannot be written.
    """
    if not isinstance(args, IGAConfig):
        raise TypeError(
            f"args must be an IGAConfig, got {type(args).__name__}; IGAConfig takes the same "
            "arguments and Poise's own"
        )
    for name, reason in (
        ("compute_loss_func", "domains are compared by the loss of each domain"),
        ("formatting_func", "write prompt and completion as they are to be read"),
    ):
        if host.get(name) is not None:
            raise ValueError(f"{name} does not work with IGA: {reason}; leave it out")
    refuse_data_parallel(args, "IGATrainer")
    if not isinstance(model, str):
        refuse_spread_model(model)
        refuse_sharded_model(model)
    domains = check_isomer_rows(train_dataset, args.iga_domains)
    _check_labels(train_dataset, args, "train_dataset")
    _check_batch(train_dataset, args, domains)
    own, kind = host.get("optimizers", (None, None))[0], host.get("optimizer_cls_and_kwargs")
    check_installed(args, own or kind)
    if args.needs_engine:
        _check_plain_lora(model, host.get("peft_config"))
        refuse_steps_in_backward(own or (kind and kind[0]), GRADIENTS)
        is_named = args.iga_update == "retraction" and own is None and kind is None
        if is_named and (args.optim != "sgd" or args.weight_decay):
            raise ValueError(
                "iga_update='retraction' needs plain SGD: set optim='sgd' and weight_decay=0 "
                f"(found {args.optim.value!r} and {args.weight_decay}), or iga_update='chain'"
            )
    _check_evaluation_rows(eval_dataset, args)
    check_output_folder(Path(args.output_dir))
    if isinstance(model, str):
        model = find_model(model, args)
        check_adapter(model, args, host.get("peft_config"))
    return model, domains


def check_isomer_rows(rows: Any, domains: Sequence[str] | None = None) -> tuple[str, ...]:
    """Checks rows of isomer sets; a set may lack a domain.

    Args:
        rows: a `datasets.Dataset` with `isomer_id`, `domain`, `prompt` and `completion` (or
            `input_ids` and `labels`, if it is tokenised).
        domains: those that may occur; None for any.

    Returns:
        The domains, in the given order, else in that of first appearance.
    """
    if not isinstance(rows, Dataset):
        raise TypeError(
            f"train_dataset must be a datasets.Dataset with isomer sets, got {type(rows).__name__};"
            " make one (Dataset.from_list(list(rows))); a stream cannot be grouped into sets"
        )
    if images := {"image", "images"} & set(rows.column_names):
        raise ValueError(
            f"train_dataset: expected no column {min(images)!r}, found one; IGATrainer trains on "
            "text alone"
        )
    needed = required(rows.column_names)
    check_columns(rows.column_names, needed, "train_dataset")
    check_dataset(rows.select_columns(list(needed)), needed, filled=needed, name="train_dataset")
    sets, names = rows[SET], rows[DOMAIN]
    found = tuple(dict.fromkeys(names)) if domains is None else tuple(domains)
    seen: dict[tuple[Any, str], int] = {}
    for row, (isomer, name) in enumerate(zip(sets, names, strict=True)):
        if name not in found:
            raise ValueError(
                f"train_dataset, row {row}: expected a domain among {', '.join(found)}, found "
                f"{name!r}; add it to iga_domains, or leave the row out"
            )
        if (before := seen.setdefault((isomer, name), row)) != row:
            has_tests = name_of_test(rows[before]) != name_of_test(rows[row])
            remedy = f"remove one, or give it another {SET}"
            if has_tests:
                remedy = "several tests (column 'test') share sets, and are there for `poise eval`"
            raise ValueError(
                f"train_dataset, row {row}: expected one row of each domain in a set, found "
                f"another of {name!r} in set {isomer!r} (row {before}); {remedy}"
            )
    sizes = Counter(sets)
    alone = sum(size == 1 for size in sizes.values())
    if len(set(names)) == 1:
        logger.warning(
            "All rows are of one domain, %r: there is nothing to compare, and IGA is plain "
            "fine-tuning.",
            names[0],
        )
    elif alone:
        logger.warning(
            "%d of %d isomer sets have a single row; such a set compares nothing by itself.",
            alone,
            len(sizes),
        )
    return found


def _check_evaluation_rows(rows: Any, args: IGAConfig) -> None:
    """Checks TRL's eval_dataset, as far as its length and columns are known."""
    for name, part in (rows if isinstance(rows, dict) else {"": rows}).items():
        if not isinstance(part, Dataset):
            continue
        called = f"eval_dataset[{name!r}]" if name else "eval_dataset"
        if not len(part):
            raise ValueError(f"{called}: expected at least one row, found none; leave it out")
        _check_labels(part, args, called)
        if "prompt" in part.column_names and TOKENS not in part.column_names:
            check_columns(part.column_names, ("prompt", "completion"), called)


def _check_labels(rows: Dataset, args: IGAConfig, name: str) -> None:
    """Tokenised rows without labels would count the prompt as well, silently."""
    columns = set(rows.column_names)
    if args.completion_only_loss and TOKENS in columns and not columns & {*MASKS}:
        raise ValueError(
            f"{name}: expected 'labels' (or 'completion_mask') beside 'input_ids', found neither, "
            "so that the prompt would be trained on; add it, or set completion_only_loss=False"
        )


def _check_batch(rows: Dataset, args: IGAConfig, domains: Sequence[str]) -> None:
    """A batch holds whole sets, and there are enough of them."""
    size, number = args.per_device_train_batch_size, len(domains)
    if size % number:
        below = size // number * number
        near = f"{below} or {below + number}" if below else str(number)
        raise ValueError(
            f"per_device_train_batch_size={size} counts sequences, as in TRL; a batch holds whole "
            f"isomer sets of {number} domains, so expected a multiple of {number}, e.g. {near} "
            f"({size * number} for {size} sets)"
        )
    sets, batch = len(set(rows[SET])), size // number * args.world_size
    if args.dataloader_drop_last and sets < batch:
        raise ValueError(
            f"train_dataset: expected at least the {batch} isomer sets of a batch, found {sets}, "
            "which dataloader_drop_last=True leaves out; make per_device_train_batch_size smaller"
        )


def _check_plain_lora(model: Any, peft_config: Any) -> None:
    """What the engine would refuse after the model was loaded."""
    if isinstance(model, str) and peft_config is None:
        raise ValueError(
            "IGA takes apart the gradients of LoRA adapters, found none to train: pass "
            "peft_config=LoraConfig(...) or --use_peft true, or set iga_method='erm' for plain "
            "fine-tuning"
        )
    kind = getattr(peft_config, "peft_type", "LORA")
    found = "use_dora" if getattr(peft_config, "use_dora", False) else getattr(kind, "value", kind)
    if found != "LORA":
        raise ValueError(
            f"peft_config: expected plain LoRA, found {found}; IGA is built for LoRA on linear "
            "layers, so pass LoraConfig(...) without variants"
        )


def check_plain_sgd(optimizer: Any) -> None:
    """Checks the optimizer of a retraction, whose gradient is of use to one plain SGD step alone.

    Raises:
        ValueError: it is not SGD with neither momentum nor weight decay and one learning rate.
    """
    extras = ("momentum", "weight_decay", "maximize")
    groups = optimizer.param_groups if isinstance(optimizer, SGD) else ()
    has_extras = any(group[name] for group in groups for name in extras)
    if has_extras or len({group["lr"] for group in groups}) != 1:
        raise ValueError(
            "iga_update='retraction' needs torch.optim.SGD with one learning rate, no momentum and "
            f"no weight decay, found {type(optimizer).__name__} with {optimizer.defaults}; set "
            "optim='sgd' and weight_decay=0, or iga_update='chain'"
        )
