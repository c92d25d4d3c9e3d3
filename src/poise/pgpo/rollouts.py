"""Rollouts: feedback text from rewards, prompts sampled again, questions weighed by pass rate."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from accelerate.logging import get_logger
from torch import Tensor, nn
from transformers.integrations import is_deepspeed_zero3_enabled
from trl.data_utils import is_conversational

from ..prompt_cache import generate
from ..trl.contract import SDPOTrainer
from .reward_functions import (
    TextReward,
    advantages,
    are_level,
    join_texts,
    pass_rate_weights,
    reward_figures,
    success_threshold,
)

logger = get_logger(__name__)


class RolloutMixin(SDPOTrainer):  # type: ignore[misc]
    """Wraps TRL's sampling and scoring of rollouts."""

    rollout_feedback: list[str | None] | None = None  # of the batch that is being built, local
    rollout_unscored: Tensor | None = None  # which have no reward, over all ranks: (N,) bool
    _rollout_inputs: list[dict[str, Any]] | None = None
    _scored: Tensor | None = None  # rewards of all ranks, of the batch as it stands
    _sampler_logps: list[Any] | None = None  # vLLM's, of its last rollouts

    def _wrap_reward_functions(self) -> None:
        self.reward_funcs: list[Any] = [
            function if isinstance(function, nn.Module) else TextReward(function, self._take_texts)
            for function in self.reward_funcs
        ]

    def _take_texts(self, texts: list[str | None]) -> None:
        before = self.rollout_feedback or [None] * len(texts)
        self.rollout_feedback = join_texts(before, texts)

    def _check_reward_functions(self, row: dict[str, Any]) -> None:
        """Calls each reward function on one group of empty completions, which the model may write
        at any time: a wrong one fails now."""
        rows = [row] * self.num_generations
        prompts = [row["prompt"] for row in rows]
        chat = is_conversational({"prompt": prompts[0]})
        empty: Any = [{"role": "assistant", "content": ""}] if chat else ""
        kept = ("privileged_context",) if self.args.remove_unused_columns else row.keys()
        columns = {
            key: [row[key] for row in rows]
            for key in row
            if key in kept and key not in ("prompt", "completion")
        }
        for function in self.reward_funcs:
            if isinstance(function, TextReward):
                function.check(
                    prompts=prompts,
                    completions=[empty for _ in rows],
                    completion_ids=[[] for _ in rows],
                    trainer_state=self.state,
                    **columns,
                )
        self.rollout_feedback = None

    def _calculate_rewards(
        self, inputs: Any, prompts: Any, completions: Any, completion_ids_list: list[list[int]]
    ) -> Tensor:
        """TRL's; a batch that resampling has scored is not scored again."""
        scored, self._scored = self._scored, None
        if scored is not None:
            return scored
        self.rollout_feedback = None
        rewards: Tensor = super()._calculate_rewards(
            inputs, prompts, completions, completion_ids_list
        )
        weighs = (self.reward_weights != 0).to(rewards.device)
        is_infinite = (rewards.isinf() & weighs).any(0)  # the same on all ranks
        if is_infinite.any():
            named = zip(self.reward_funcs, is_infinite.tolist(), strict=True)
            names = [getattr(f, "__name__", type(f).__name__) for f, is_inf in named if is_inf]
            raise ValueError(
                f"reward functions {', '.join(names)}: expected finite rewards (in float32), found "
                "an infinite one, against which no other has an advantage; return a large number, "
                "or None for no reward"
            )
        self.rollout_unscored = ~(~rewards.isnan() & weighs).any(dim=1)
        return rewards

    def sample_rollouts(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        self._rollout_inputs = inputs
        return super().sample_rollouts(inputs)

    def _tokenize_prompts_untruncated(self, prompts: list[Any]) -> list[list[int]]:
        """TRL's, without the end that a tokenizer itself puts behind a text.

        A chat template's own end stays; a tokenizer appends nothing to it.
        """
        ids: list[list[int]] = super()._tokenize_prompts_untruncated(prompts)
        chat = is_conversational({"prompt": prompts[0]})
        if not chat and appends_end(self.processing_class, self.eos_token_ids):
            return [row[:-1] for row in ids]
        return ids

    def _tokenize_prompts(self, prompts: list[Any]) -> list[list[int]]:
        """TRL's, which cuts off the beginning of long prompts; says so."""
        ids, limit = self._tokenize_prompts_untruncated(prompts), self.max_prompt_length
        if limit is None or max(map(len, ids)) <= limit:
            return ids
        logger.warning_once(
            f"A prompt is longer than max_prompt_length={limit}, and its beginning is cut off. "
            "Raise max_prompt_length, or leave long prompts out."
        )
        return [row[-limit:] for row in ids]

    def _generate(self, prompt_ids: list[list[int]]) -> tuple[list[list[int]], list[list[int]]]:
        """TRL's; then, up to `max_resamples` times, again for prompts without a success."""
        prompts, completions = super()._generate(prompt_ids)
        resamples = self.args.max_resamples if self.model.training else 0
        for attempt in range(resamples):
            failed = self._prompts_without_success(completions)
            if attempt == 0:
                fraction = failed.float().mean().item()
                self._metrics["train"]["pgpo/resampled_fraction"].append(fraction)
            if not failed.any():  # the same on all ranks
                break
            start = self.accelerator.process_index * len(completions)
            rows = failed[start : start + len(completions)].nonzero().flatten().tolist()
            # A sharded model needs every rank's forward: one without failures generates for nobody.
            _, again = super()._generate([prompt_ids[row] for row in rows or [0]])
            for row, ids in zip(rows, again, strict=False):
                completions[row] = ids
            self._scored = None  # on every rank: scoring gathers
        return prompts, completions

    def _generate_transformers(
        self, prompt_ids: list[list[int]]
    ) -> tuple[list[list[int]], list[list[int]]]:
        """TRL's; with `share_prompts`, the prompt of a group is read once, not once a rollout."""
        # A sharded model is gathered by its own forward.
        is_sharded = self.is_fsdp_enabled or is_deepspeed_zero3_enabled()
        if is_sharded or not self.args.share_prompts:
            return super()._generate_transformers(prompt_ids)
        model: Any = self.accelerator.unwrap_model(self.model_wrapped)
        with _generating(model, partial(generate, model, model.generate)):
            return super()._generate_transformers(prompt_ids)

    def _generate_vllm(self, prompt_ids: list[list[int]]) -> tuple[list[list[int]], Any]:
        """TRL's; asks vLLM for the log-probabilities of its tokens, and keeps them."""
        sampler = self.vllm_generation
        if self.args.vllm_importance_sampling_correction:
            sampler.logprobs = 0  # of the sampled token alone; TRL's None asks for none

        def generate(**arguments: Any) -> Any:
            found = type(sampler).generate(sampler, **arguments)
            self._sampler_logps = found[2]
            return found

        with _generating(sampler, generate):
            return super()._generate_vllm(prompt_ids)

    def _compute_rollout_logps(
        self, prompt_ids: Tensor, prompt_mask: Tensor, completion_ids: Tensor, completion_mask: Any
    ) -> Tensor | None:
        r"""TRL's; of vLLM's rollouts it is vLLM that gave them their probability.

        vLLM rounds otherwise than the trainer, so its rollouts are not quite the policy's. A ratio
        :math:`\pi(y) / \pi_{vLLM}(y)` of each token corrects for that.

        Choice: it is the ratio that the loss has for rollouts of an older policy, with its bounds
        (`distillation_is_clip`, `epsilon`). TRL's GRPO multiplies two ratios, of the trainer's old
        policy to vLLM's and of the new one to the old, which takes one more forward pass.
        """
        found, self._sampler_logps = self._sampler_logps, None
        takes_them = self.args.vllm_importance_sampling_correction and self.model.training
        if found is None or not takes_them:
            return super()._compute_rollout_logps(
                prompt_ids, prompt_mask, completion_ids, completion_mask
            )
        logps = torch.zeros(completion_ids.shape, dtype=torch.float32)
        for row, tokens in zip(logps, found, strict=True):
            # The one that was sampled; what vLLM has no number for is no number in the loss either.
            own = [math.nan if token[0] is None else token[0] for token in tokens]
            row[: len(own)] = torch.tensor(own)
        return logps.to(completion_ids.device)

    def _record_sampler(self, mode: str, logps: Tensor, batch: dict[str, Tensor]) -> None:
        """Logs how far the trainer's and vLLM's log-probabilities are apart, on average."""
        old = batch.get("old_per_token_logps")
        if not self.use_vllm or old is None:
            return
        mask = batch["loss_mask"] != 0
        apart = (logps.view_as(old) - old).abs().where(mask, 0.0).sum() / mask.sum().clamp(min=1)
        mean = self.accelerator.gather(apart).mean().item()
        self._metrics[mode]["pgpo/sampler_log_ratio"].append(mean)

    def _prompts_without_success(self, completions: list[list[int]]) -> Tensor:
        """Which rows, over all ranks, belong to a group whose every reward is a failure: (N,) bool.

        A rollout without a reward says nothing, and neither does a group of such.
        """
        rewards = self._score(completions)
        weights = self.reward_weights.to(rewards.device)
        success = (rewards * weights).nansum(dim=1) >= success_threshold(self.args)
        scored = ~self._unscored()
        groups = torch.stack([scored, success & scored]).view(2, -1, self.num_generations).any(2)
        return (groups[0] & ~groups[1]).repeat_interleave(self.num_generations)

    def _unscored(self) -> Tensor:
        assert self.rollout_unscored is not None, "rewards come first"
        return self.rollout_unscored

    def _score(self, completion_ids: list[list[int]]) -> Tensor:
        """Rewards of all ranks, kept for TRL's call."""
        inputs = self._rollout_inputs or []
        prompts = [row["prompt"] for row in inputs]
        completions: list[Any] = self.processing_class.batch_decode(
            completion_ids, skip_special_tokens=True
        )
        if is_conversational({"prompt": prompts[0]}):
            completions = [[{"role": "assistant", "content": text}] for text in completions]
        self._scored = self._calculate_rewards(inputs, prompts, completions, completion_ids)
        return self._scored

    def _prepare_training_batch(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        batch: dict[str, Any] = super()._prepare_training_batch(inputs)
        self._leave_out_unscored(batch)
        if self.model.training:
            if self.args.routing:
                rewards = self.accelerator.gather(batch["rewards"])
                level = self._own(are_level(rewards, self.num_generations))
                batch["advantages"] = batch["advantages"].masked_fill(level, 0.0)
            if self.args.pass_rate_weight:
                self._weigh_by_pass_rate(batch)
            self._watch_rollouts()
        return batch

    def _leave_out_unscored(self, batch: dict[str, Any]) -> None:
        """Takes rollouts without a reward, which TRL counts as 0, out of its figures."""
        unscored = self._unscored()
        mode = "train" if self.model.training else "eval"
        fraction = unscored.float().mean().item()
        self._metrics[mode]["pgpo/unscored_fraction"].append(fraction)
        if fraction == 0:
            return
        rewards = self.accelerator.gather(batch["rewards"]).masked_fill(unscored, torch.nan)
        size = self.num_generations if self.model.training else self.num_generations_eval
        batch["rewards"] = self._own(rewards)
        batch["advantages"] = self._own(advantages(rewards, size, self.args.scale_rewards))
        for name, figure in reward_figures(rewards).items():
            self._metrics[mode][f"self_distillation/{name}"][-1] = figure

    def _own(self, values: Tensor) -> Tensor:
        """This rank's part of what all ranks have together."""
        count = len(values) // self.accelerator.num_processes
        start = self.accelerator.process_index * count
        return values[start : start + count]

    def _weigh_by_pass_rate(self, batch: dict[str, Any]) -> None:
        """Gives each sample its weight; what has none is not distilled."""
        rewards = self.accelerator.gather(batch["rewards"])
        weights = pass_rate_weights(
            rewards >= success_threshold(self.args),
            self.accelerator.gather(batch["self_distillation_mask"]),
            self.num_generations,
            known=~rewards.isnan(),
        )
        own = self._own(weights)
        batch["sample_weights"] = own
        batch["self_distillation_mask"] = (own > 0).to(batch["self_distillation_mask"].dtype)

    def _watch_rollouts(self) -> None:
        """Passes the batch's reward and length to the collapse monitor."""
        metrics = self._metrics["train"]
        self._watched["reward"] = metrics["self_distillation/reward_mean"][-1]
        self._watched["completion length"] = metrics["completions/mean_length"][-1]


@contextmanager
def _generating(owner: Any, function: Callable[..., Any]) -> Iterator[None]:
    """Puts a function in the place of this one object's `generate`."""
    owner.generate = function
    try:
        yield
    finally:
        del owner.generate  # its class keeps the method


def appends_end(processing_class: Any, ends: Collection[int]) -> bool:
    """Whether a tokenizer puts one of these ends behind every text, as with `add_eos_token`."""
    return processing_class(text=["a"])["input_ids"][0][-1] in ends
