"""Checks of everything that the user hands over, before anything expensive starts.

What is refused is a ValueError, of another type a TypeError.
"""

from __future__ import annotations

import difflib
import inspect
import logging
from pathlib import Path
from typing import Any

from accelerate.utils import DynamoBackend, is_peft_model
from datasets import Dataset
from torch import nn
from trl.data_utils import is_conversational

from ..loss.heads import split_causal_lm
from ..precision import keep_differentiable
from ..rows import check_columns, checked_rows
from ..trl.preflight import (
    check_adapter,
    check_installed,
    check_map_style,
    check_output_folder,
    find_model,
    refuse_compiled_model,
    refuse_data_parallel,
    refuse_idle_optimizer,
    refuse_quantised_shards,
    refuse_sharded_model,
    refuse_spread_model,
)
from .config import PGPOConfig
from .rollouts import RewardCheckError, RewardFunction, name_of

HINT = "privileged_context"
BEST = "self_distillation/reward_mean"  # of the metrics of an evaluation
_GIVEN = {"prompts", "completions", "trainer_state"}  # beside the columns

logger = logging.getLogger(__name__)


def check_before_loading(
    model: Any,
    args: PGPOConfig,
    train_dataset: Any,
    eval_dataset: Any = None,
    reward_funcs: Any = (),
    optimizers: tuple[Any, Any] = (None, None),
    peft_config: Any = None,
) -> Any:
    """Makes the checks that need no model; returns the model, or what its name stands for."""
    if not isinstance(args, PGPOConfig):
        raise TypeError(
            f"args must be a PGPOConfig, got {type(args).__name__}; PGPOConfig takes the same "
            "arguments and more"
        )
    if train_dataset is None:
        raise ValueError("train_dataset is required: pass a Dataset with a column 'prompt'")
    refuse_data_parallel(args, "PGPOTrainer")
    refuse_engine_settings(args, optimizers)
    if not isinstance(model, str):
        refuse_spread_model(model)
        refuse_sharded_model(model)
        if args.tiled_loss:
            refuse_compiled_model(model)
    check_templates(args)
    check_installed(args, optimizers[0])
    _check_best_model(args)
    evaluates = args.eval_strategy != "no" or args.eval_on_start
    sets = eval_dataset if isinstance(eval_dataset, dict) else {"": eval_dataset}
    named = {f"eval_dataset {name}".strip(): rows for name, rows in sets.items()}
    for name, rows in ({"train_dataset": train_dataset} | named).items():
        if rows is not None:
            hints = args.include_environment_feedback
            columns = check_prompt_rows(rows, name, with_hints=hints)
            if args.check_rewards and (name == "train_dataset" or evaluates):
                _check_rewards(reward_funcs, rows, name, columns, args)
    check_batches(args, len(train_dataset), may_evaluate=eval_dataset is not None)
    check_output_folder(Path(args.output_dir))
    if isinstance(model, str):
        model = find_model(model, args)
        check_adapter(model, args, peft_config)
    return model


def _check_best_model(args: PGPOConfig) -> None:
    """What is best is found out at the first evaluation, and lost with it if its name is wrong."""
    if not args.load_best_model_at_end:
        return
    metric = args.metric_for_best_model.removeprefix("eval_")
    if metric == "reward":
        raise ValueError(
            f"metric_for_best_model: expected {BEST!r}, as an evaluation calls the mean reward, "
            f"found {args.metric_for_best_model!r}"
        )
    if metric == "loss":
        logger.warning(
            "load_best_model_at_end keeps the model of the lowest loss, which says little of "
            "success under PGPO; metric_for_best_model=%r keeps that of the highest mean reward.",
            BEST,
        )


def _check_rewards(
    functions: Any, rows: Any, name: str, columns: set[str], args: PGPOConfig
) -> None:
    """Whether reward functions find their columns, and what some say of the rows."""
    called = name
    if args.remove_unused_columns:
        columns = columns & {"prompt", HINT}
        called += " (others are left out: remove_unused_columns=True)"
    for function in functions if isinstance(functions, list) else [functions]:
        if not callable(function) or isinstance(function, nn.Module):
            continue
        _check_parameters(function, columns, called)
        try:
            if check := getattr(function, "check_rows", None):
                check(rows)
        except ValueError as error:
            raise ValueError(f"{name}, {error}") from None


def _check_parameters(function: RewardFunction, columns: set[str], name: str) -> None:
    """Whether a reward function takes the columns that there are, and no other."""
    try:
        signature = inspect.signature(function)
    except ValueError:  # a function without one, such as a built-in one
        return
    given = sorted({*columns, *_GIVEN, "completion_ids"} - {"prompt", "completion"})
    lacking = [
        parameter.name
        for parameter in signature.parameters.values()
        if parameter.default is parameter.empty
        and parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
        and parameter.name not in given
    ]
    check_columns(sorted(columns), lacking, f"{name}, for reward function {name_of(function)!r}")
    try:
        signature.bind(**dict.fromkeys(given))
    except TypeError as error:
        raise RewardCheckError(
            f"reward function {name_of(function)!r}: {error}; it is called with "
            f"{', '.join(given)}: name parameters after columns, take the others by **kwargs"
        ) from None


def check_prompt_rows(rows: Any, name: str, with_hints: bool = False) -> set[str]:
    """Checks the prompts of a data set, which it reads once; returns the names of all columns.

    Args:
        rows: the data set.
        name: what errors call it.
        with_hints: whether the teacher is shown static feedback. It is optional, so what is
            misspelt or no text would be left out silently.
    """
    check_map_style(rows, name)
    checked = rows
    if isinstance(rows, Dataset) and rows.format["type"] is None and "prompt" in rows.column_names:
        read = {"prompt", HINT} if with_hints else {"prompt"}
        checked = rows.select_columns([column for column in rows.column_names if column in read])
    columns: set[str] = set()
    for index, row in enumerate(checked_rows(checked, name=name)):
        if index == 0:
            # Images and audio, in columns that are not read here, are not decoded.
            columns = set(row if checked is rows else rows.column_names)
            chat = isinstance(row["prompt"], list)
            if taken := columns & _GIVEN:
                raise ValueError(
                    f"{name} has a column {min(taken)!r}, a name under which reward functions are "
                    "given something else; rename it"
                )
            near = difflib.get_close_matches(HINT, columns, n=1)
            if with_hints and HINT not in columns and near:
                raise ValueError(
                    f"{name} has no column {HINT!r}, from which the teacher takes its hint, but "
                    f"{near[0]!r}; rename it"
                )
        where = f"{name}, row {index}"
        if checked is rows and row.keys() != columns:
            raise ValueError(
                f"{where}: expected the columns of row 0, found {', '.join(sorted(row))}; fill in "
                f"or remove {', '.join(sorted(columns ^ row.keys()))}"
            )
        if isinstance(row["prompt"], list) != chat:
            raise ValueError(f"{where}: expected prompts that are all text, or all messages")
        if chat and (role := row["prompt"][-1]["role"]) != "user":
            raise ValueError(
                f"{where}: expected a prompt whose last message is the user's, found one of role "
                f"{role!r}; the teacher is shown more in the user's turn, so end the prompt there"
            )
        if with_hints and not isinstance(hint := row.get(HINT), str | None):
            raise ValueError(
                f"{where}: expected a {HINT!r} that is text or None, found {type(hint).__name__}"
            )
    return columns


def check_batches(args: PGPOConfig, prompts: int, may_evaluate: bool) -> None:
    """A batch holds whole groups, an epoch at least one; an evaluation that cuts groups is an error
    if it is to run, else a warning."""
    needed = args.generation_batch_size // args.num_generations
    if prompts < needed:
        raise ValueError(
            f"train_dataset has {prompts} prompts, and a generation batch takes {needed} "
            f"(generation_batch_size={args.generation_batch_size} / num_generations="
            f"{args.num_generations}), so there would be no step; add prompts, or lower "
            "per_device_train_batch_size, gradient_accumulation_steps or generation_batch_size"
        )
    if left := not args.shuffle_dataset and prompts % needed:
        logger.warning(
            f"The last {left} of {prompts} prompts are in no batch of {needed}, and "
            "shuffle_dataset=False: they are never trained on."
        )
    size = args.num_generations_eval or args.num_generations
    batch = args.per_device_eval_batch_size * args.world_size
    if may_evaluate and batch % size:
        message = (
            f"an evaluation's batch has {batch} rollouts (per_device_eval_batch_size="
            f"{args.per_device_eval_batch_size} x {args.world_size} processes), expected whole "
            f"groups of {size}; change it, or num_generations_eval"
        )
        if args.eval_strategy != "no" or args.eval_on_start:
            raise ValueError(message)
        logger.warning("This run has no evaluation, but if you call one: %s", message)


def check_templates(args: PGPOConfig) -> None:
    """Fills each template in: stray braces would raise at the first success, and without a field
    the question, or what is shown beside it, would be left out."""
    siblings, feedback = args.use_successful_as_teacher, args.include_environment_feedback
    fields = {
        "reprompt_template": {"prompt": True, "solution": siblings, "feedback": feedback},
        "solution_template": {"successful_previous_attempt": siblings},
        "feedback_template": {"feedback_raw": feedback},
    }
    for name, wanted in fields.items():
        template = getattr(args, name)
        try:
            written = template.format(**{field: f"<{field}>" for field in wanted})
        except (IndexError, KeyError, ValueError) as error:
            raise ValueError(
                f"{name} cannot be filled in ({type(error).__name__}: {error}); it may hold "
                f"{', '.join(f'{{{field}}}' for field in wanted)}, and other braces are doubled"
            ) from None
        if lacks := [f for f, needed in wanted.items() if needed and f"<{f}>" not in written]:
            raise ValueError(f"{name} lacks {{{lacks[0]}}}, which it is there to show; add it")


def check_chat_template(row: dict[str, Any], processing_class: Any) -> None:
    """A conversational prompt needs a tokenizer that knows how to write one down."""
    if is_conversational({"prompt": row["prompt"]}) and not processing_class.chat_template:
        raise ValueError(
            "the prompts are conversations, but the tokenizer has no chat template; use an "
            "instruction-tuned model, set tokenizer.chat_template, or make the prompts plain text"
        )


def refuse_unsupported(trainer: Any) -> None:
    """Refuses what a loaded model is to run under, and a model that cannot be split."""
    args, accelerator = trainer.args, trainer.accelerator
    refuse_spread_model(trainer.model)
    keep_differentiable(trainer.model)
    refuse_quantised_shards(accelerator, trainer.model, args)
    refuse_idle_optimizer(trainer.optimizer, trainer.model)
    if args.use_vllm and trainer.is_fsdp_enabled and is_peft_model(trainer.model):
        raise ValueError(
            "use_vllm hands a merged adapter over, and under FSDP2 TRL merges shards; use DDP, "
            "full training, or use_vllm=False"
        )
    if args.tiled_loss and accelerator.state.dynamo_plugin.backend != DynamoBackend.NO:
        raise ValueError(
            "Accelerate is told to compile the model (--dynamo_backend, ACCELERATE_DYNAMO_BACKEND),"
            " but the tiled loss runs its parts one by one; leave that out, or set tiled_loss=False"
        )
    measures = args.multiplier == "distance"
    try:
        if trainer._uses_tiled_loss() or measures:
            split_causal_lm(trainer.model)
    except ValueError as error:
        if not measures:
            raise
        raise ValueError(
            f"{error}. multiplier='distance' measures a step by the same parts; set "
            "multiplier='information' too"
        ) from error


# With other values than these (the first is the default) the engine steps past the optimizer that
# PGPO scales, or no rank holds a whole output head.
_KEPT_OUT = {
    "zero_optimization.zenflow": (None,),
    "zero_optimization.compute_grad_norm": (True,),
    "zero_optimization.offload_optimizer.super_offload": (False,),
    "zero_optimization.offload_optimizer.ratio": (1.0,),
    "tensor_parallel.autotp_size": (0, 1),
}


def refuse_engine_settings(args: Any, optimizers: tuple[Any, Any]) -> None:
    """Refuses what PGPO cannot do under DeepSpeed, or would do wrongly."""
    if args.deepspeed_plugin is None:
        return
    if optimizers != (None, None):
        raise ValueError(
            "under DeepSpeed transformers makes the optimizer and the schedule anew, whatever "
            "optimizers=... holds; choose them by optim and lr_scheduler_type"
        )
    config = args.deepspeed_plugin.hf_ds_config
    stage = config.get_value("zero_optimization.stage", 0)
    if stage == 0:
        raise ValueError(
            "the DeepSpeed config has ZeRO stage 0, which shards nothing; set "
            "zero_optimization.stage to 1, 2 or 3, or use DDP"
        )
    if args.fp16 or config.get_value("fp16.enabled") is True:
        raise ValueError(
            "under DeepSpeed PGPOTrainer trains in float32 or bfloat16, found fp16, whose scaled "
            "loss decides by itself which steps count; set fp16=False, and bf16=True if you wish"
        )
    clips = config.get_value("gradient_clipping", 0.0)
    if args.max_grad_norm > 0 and clips not in ("auto", args.max_grad_norm):
        raise ValueError(
            f"DeepSpeed's engine clips: expected gradient_clipping={args.max_grad_norm} in its "
            f"config, as max_grad_norm, found {clips}; set it to 'auto', or max_grad_norm=0"
        )
    for name, allowed in _KEPT_OUT.items():
        if (found := config.get_value(name, allowed[0])) not in allowed:
            raise ValueError(
                f"the DeepSpeed config has {name}={found!r}, with which PGPO's steps would be "
                "wrong; leave it out"
            )
    every, micro_batches = args.steps_per_generation, args.gradient_accumulation_steps
    if args.averages_by_distilled and every % micro_batches:
        raise ValueError(
            "under DeepSpeed the rollouts of a whole step come before its first backward: expected "
            f"steps_per_generation={every} to be a multiple of gradient_accumulation_steps="
            f"{micro_batches}; change it, or set normalize_by_distilled=False"
        )
    whole = ("tiled_loss", "exact_resume", "teacher_from_student")
    on = [f"{name}=True" for name in whole if getattr(args, name)]
    on += ["multiplier='distance'"] if args.multiplier == "distance" else []
    if stage == 3 and on:
        raise ValueError(
            f"under ZeRO-3 no rank holds a whole model, which these need: {', '.join(on)}; use "
            "ZeRO-2 or DDP, or set them to False (the multiplier to 'information')"
        )
