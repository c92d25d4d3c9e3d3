"""What Poise takes from TRL's and transformers' internals, in one place.

Everything else in Poise uses their public names. `CONTRACT` and `SFT_CONTRACT` list the methods of
TRL's trainers that ours override or call, with their parameters, and `ATTRIBUTES` and
`SFT_ATTRIBUTES` what ours read or set of theirs; a test compares them with the installed TRL, so
that a new version fails there, by name, and not in a run.
"""

from __future__ import annotations

import warnings

with warnings.catch_warnings():
    # TRL warns on the import of anything experimental; Poise holds TRL to a minor version instead.
    warnings.simplefilter("ignore")
    from trl.experimental.sdpo import SDPOConfig, SDPOTrainer
    from trl.experimental.sdpo.sdpo_trainer import (
        SuccessfulRolloutTeacherContextBuilder,
        _extract_last_user_text,
    )
    from trl.experimental.sdpo.teacher_sync import is_pure_lora_training

from trl.models.utils import _ForwardRedirection, disable_gradient_checkpointing
from trl.trainer.utils import use_adapter

extract_last_user_text = _extract_last_user_text
TeacherContextBuilder = SuccessfulRolloutTeacherContextBuilder
ForwardRedirection = _ForwardRedirection

__all__ = [
    "ATTRIBUTES",
    "CONTRACT",
    "SFT_ATTRIBUTES",
    "SFT_CONTRACT",
    "ForwardRedirection",
    "SDPOConfig",
    "SDPOTrainer",
    "TeacherContextBuilder",
    "disable_gradient_checkpointing",
    "extract_last_user_text",
    "is_pure_lora_training",
    "use_adapter",
]

_COMMON: dict[str, tuple[str, ...]] = {
    "compute_loss": ("self", "model", "inputs", "return_outputs", "num_items_in_batch"),
    "create_optimizer": ("self", "model"),
    "train": ("self", "resume_from_checkpoint", "trial", "ignore_keys_for_eval"),
    "_clip_grad_norm": ("self", "model"),
    "_get_grad_norm": ("self", "model", "grad_norm"),
    "_get_learning_rate": ("self",),
    "_get_output_dir": ("self", "trial"),
    "_init_training_state": (
        "self",
        "max_steps",
        "num_update_steps_per_epoch",
        "num_train_epochs",
        "resume_from_checkpoint",
        "trial",
    ),
    "_load_optimizer_and_scheduler": ("self", "checkpoint"),
    "_save_checkpoint": ("self", "model", "trial"),
}

CONTRACT: dict[str, tuple[str, ...]] = {
    **_COMMON,
    "create_scheduler": ("self", "num_training_steps", "optimizer"),
    "sample_rollouts": ("self", "inputs"),
    "_calculate_rewards": ("self", "inputs", "prompts", "completions", "completion_ids_list"),
    "_compute_rollout_logps": (
        "self",
        "prompt_ids",
        "prompt_mask",
        "completion_ids",
        "completion_mask",
    ),
    "_compute_teacher_student_logits": ("self", "model", "teacher_model", "inputs"),
    "_generate": ("self", "prompt_ids"),
    "_generate_transformers": ("self", "prompt_ids"),
    "_generate_vllm": ("self", "prompt_ids"),
    "_get_teacher_context_for_self_distillation": ("self",),
    "_get_train_sampler": ("self", "dataset"),
    "_load_best_model": ("self",),
    "_log_self_distillation_metric": ("self", "mode", "value"),
    "_prepare_training_batch": ("self", "inputs"),
    "_setup_teacher_model": ("self",),
    "_tokenize_prompts": ("self", "prompts"),
    "_tokenize_prompts_untruncated": ("self", "prompts"),
}

SFT_CONTRACT: dict[str, tuple[str, ...]] = {
    **_COMMON,
    "log": ("self", "logs", "start_time"),
    "training_step": ("self", "args", "kwargs"),
    "get_train_dataloader": ("self",),
    "_get_dataloader": (
        "self",
        "dataset",
        "description",
        "batch_size",
        "sampler_fn",
        "is_training",
        "dataloader_key",
    ),
    "_get_train_sampler": ("self", "train_dataset"),
    "_prepare_dataset": (
        "self",
        "dataset",
        "processing_class",
        "args",
        "packing",
        "formatting_func",
        "dataset_name",
    ),
}

_COMMON_ATTRIBUTES = ("_globalstep_last_logged", "_metrics", "_total_loss_scalar", "_tr_loss")
ATTRIBUTES = (*_COMMON_ATTRIBUTES, "_buffered_inputs", "_diagnostic_counters", "_step")
SFT_ATTRIBUTES = (*_COMMON_ATTRIBUTES, "_total_train_tokens", "aux_loss_enabled")
