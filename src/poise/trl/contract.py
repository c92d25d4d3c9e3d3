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
    from trl.experimental.sdpo import SDPOConfig as SDPOConfig
    from trl.experimental.sdpo import SDPOTrainer as SDPOTrainer
    from trl.experimental.sdpo.sdpo_trainer import (
        SuccessfulRolloutTeacherContextBuilder,
        _extract_last_user_text,
    )
    from trl.experimental.sdpo.teacher_sync import is_pure_lora_training as is_pure_lora_training

from trl.models.utils import _ForwardRedirection
from trl.models.utils import disable_gradient_checkpointing as disable_gradient_checkpointing
from trl.trainer.utils import use_adapter as use_adapter

extract_last_user_text = _extract_last_user_text
TeacherContextBuilder = SuccessfulRolloutTeacherContextBuilder
ForwardRedirection = _ForwardRedirection

# Method -> its parameters after `self`.
_COMMON = {
    "compute_loss": "model inputs return_outputs num_items_in_batch",
    "create_optimizer": "model",
    "train": "resume_from_checkpoint trial ignore_keys_for_eval",
    "_clip_grad_norm": "model",
    "_get_grad_norm": "model grad_norm",
    "_get_learning_rate": "",
    "_get_output_dir": "trial",
    "_init_training_state": "max_steps num_update_steps_per_epoch num_train_epochs "
    "resume_from_checkpoint trial",
    "_issue_warnings_after_load": "load_result",
    "_load_optimizer_and_scheduler": "checkpoint",
    "_save_checkpoint": "model trial",
}

CONTRACT = _COMMON | {
    "create_scheduler": "num_training_steps optimizer",
    "sample_rollouts": "inputs",
    "_calculate_rewards": "inputs prompts completions completion_ids_list",
    "_compute_rollout_logps": "prompt_ids prompt_mask completion_ids completion_mask",
    "_compute_teacher_student_logits": "model teacher_model inputs",
    "_generate": "prompt_ids",
    "_generate_transformers": "prompt_ids",
    "_generate_vllm": "prompt_ids",
    "_get_teacher_context_for_self_distillation": "",
    "_get_train_sampler": "dataset",
    "_load_best_model": "",
    "_log_self_distillation_metric": "mode value",
    "_prepare_training_batch": "inputs",
    "_setup_teacher_model": "",
    "_tokenize_prompts": "prompts",
    "_tokenize_prompts_untruncated": "prompts",
}

SFT_CONTRACT = _COMMON | {
    "log": "logs start_time",
    "training_step": "args kwargs",
    "get_train_dataloader": "",
    "_get_dataloader": "dataset description batch_size sampler_fn is_training dataloader_key",
    "_get_train_sampler": "train_dataset",
    "_prepare_dataset": "dataset processing_class args packing formatting_func dataset_name",
}

_COMMON_ATTRIBUTES = ("_globalstep_last_logged", "_metrics", "_total_loss_scalar", "_tr_loss")
ATTRIBUTES = (*_COMMON_ATTRIBUTES, "_buffered_inputs", "_diagnostic_counters", "_step")
SFT_ATTRIBUTES = (*_COMMON_ATTRIBUTES, "_total_train_tokens", "aux_loss_enabled")
