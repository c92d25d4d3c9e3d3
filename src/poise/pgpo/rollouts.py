"""Rollouts and their rewards: feedback text, prompts sampled again, what is made of rewards."""

from __future__ import annotations

import functools
import logging
import math
import struct
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from accelerate.logging import get_logger
from torch import Tensor, nn
from transformers.integrations import is_deepspeed_zero3_enabled
from trl.data_utils import is_conversational

from ..loss.heads import split_causal_lm
from ..loss.tiled import tiled_token_logps
from ..prompt_cache import generate
from ..sharding import read_inside
from ..trl.contract import SDPOTrainer

logger = get_logger(__name__)


class RolloutMixin(SDPOTrainer):  # type: ignore[misc]
    """Wraps TRL's sampling and scoring of rollouts."""

    rollout_feedback: list[str | None] | None = None  # of the batch that is being built, local
    rollout_unscored: Any = None  # which have no reward, over all ranks: (N,) bool
    _rollout_inputs: list[dict[str, Any]] | None = None
    _scored: Tensor | None = None  # rewards of all ranks, of the batch as it stands
    _sampler_logps: list[Any] | None = None  # vLLM's, of its last rollouts

    def _wrap_reward_functions(self) -> None:
        self.reward_funcs: list[Any] = [
            function if isinstance(function, nn.Module) else TextReward(function, self._take_texts)
            for function in self.reward_funcs
        ]

    def _take_texts(self, texts: list[str | None]) -> None:
        """Puts those of several functions together, completion by completion."""
        pairs = zip(self.rollout_feedback or [None] * len(texts), texts, strict=True)
        self.rollout_feedback = ["\n".join(filter(None, pair)) or None for pair in pairs]

    def _check_reward_functions(self, row: dict[str, Any]) -> None:
        """Calls each reward function on one group of empty completions, which the model may write
        at any time: a wrong one fails now."""
        size, chat = self.num_generations, is_conversational({"prompt": row["prompt"]})
        empty: Any = [{"role": "assistant", "content": ""}] if chat else ""
        kept = {"privileged_context"} if self.args.remove_unused_columns else row.keys()
        names = (row.keys() & kept) - {"prompt", "completion"}
        for function in self.reward_funcs:
            if isinstance(function, TextReward):
                function.check(
                    prompts=[row["prompt"]] * size,
                    completions=[empty] * size,
                    completion_ids=[[] for _ in range(size)],
                    trainer_state=self.state,
                    **{name: [row[name]] * size for name in names},
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
            names = [name_of(function) for function, is_inf in named if is_inf]
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
        with _generating(model, functools.partial(generate, model, model.generate)):
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

    @torch.no_grad()
    def _compute_rollout_logps(
        self, prompt_ids: Tensor, prompt_mask: Tensor, completion_ids: Tensor, completion_mask: Any
    ) -> Tensor | None:
        r"""TRL's, tile by tile; of vLLM's rollouts it is vLLM that gave them their probability.

        vLLM rounds otherwise than the trainer, so its rollouts are not quite the policy's. A ratio
        :math:`\pi(y) / \pi_{vLLM}(y)` of each token corrects for that.

        Choice: it is the ratio that the loss has for rollouts of an older policy, with its bounds
        (`distillation_is_clip`, `epsilon`). TRL's GRPO multiplies two ratios, of the trainer's old
        policy to vLLM's and of the new one to the old, which takes one more forward pass.
        """
        args = self.args
        found, self._sampler_logps = self._sampler_logps, None
        if found is not None and args.vllm_importance_sampling_correction and self.model.training:
            logps = torch.zeros(completion_ids.shape, dtype=torch.float32)
            for row, tokens in zip(logps, found, strict=True):
                # The sampled one; where vLLM has no number, the loss has none either.
                own = [math.nan if token[0] is None else token[0] for token in tokens]
                row[: len(own)] = torch.tensor(own)
            return logps.to(completion_ids.device)
        repeats = args.steps_per_generation * self.num_iterations
        is_on_policy = args.gradient_accumulation_steps % repeats == 0
        if not self._uses_tiled_loss() or is_on_policy:
            return super()._compute_rollout_logps(
                prompt_ids, prompt_mask, completion_ids, completion_mask
            )
        split = split_causal_lm(self.model)  # never wrapped, and without a gradient DDP has no part

        def read() -> Tensor:
            hidden = split.hidden_states(
                torch.cat([prompt_ids, completion_ids], dim=1),
                torch.cat([prompt_mask, completion_mask], dim=1),
                completion_ids.size(1),
            )
            return tiled_token_logps(
                hidden.flatten(0, 1),
                split.head,
                completion_ids.flatten(),
                self.temperature,
                args.loss_tile_tokens,
                mask=completion_mask.flatten(),
            )

        with self.accelerator.autocast():
            return read_inside(split.model, read).view_as(completion_ids)

    def _record_sampler(self, mode: str, logps: Tensor, batch: dict[str, Tensor]) -> None:
        """Logs how far the trainer's and vLLM's log-probabilities are apart, on average."""
        old = batch.get("old_per_token_logps")
        if not self.use_vllm or old is None:
            return
        mask = batch["loss_mask"] != 0
        apart = (logps.view_as(old) - old).abs().where(mask, 0.0).sum() / mask.sum().clamp(min=1)
        mean = self.accelerator.gather(apart).mean().item()
        self._metrics[mode]["pgpo/sampler_log_ratio"].append(mean)

    def _prompts_without_success(self, completion_ids: list[list[int]]) -> Tensor:
        """Which rows, over all ranks, belong to a group whose every reward is a failure: (N,) bool.

        A rollout without a reward says nothing, and neither does a group of such. The rewards are
        kept for TRL's call.
        """
        inputs = self._rollout_inputs or []
        prompts = [row["prompt"] for row in inputs]
        completions: list[Any] = self.processing_class.batch_decode(
            completion_ids, skip_special_tokens=True
        )
        if is_conversational({"prompt": prompts[0]}):
            completions = [[{"role": "assistant", "content": text}] for text in completions]
        self._scored = rewards = self._calculate_rewards(
            inputs, prompts, completions, completion_ids
        )
        weights = self.reward_weights.to(rewards.device)
        success = (rewards * weights).nansum(dim=1) >= success_threshold(self.args)
        scored = ~self.rollout_unscored
        groups = torch.stack([scored, success & scored]).view(2, -1, self.num_generations).any(2)
        return (groups[0] & ~groups[1]).repeat_interleave(self.num_generations)

    def _prepare_training_batch(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        batch: dict[str, Any] = super()._prepare_training_batch(inputs)
        self._leave_out_unscored(batch)
        if not self.model.training:
            return batch
        args, size, metrics = self.args, self.num_generations, self._metrics["train"]
        if args.routing:
            level = self._own(are_level(self.accelerator.gather(batch["rewards"]), size))
            batch["advantages"] = batch["advantages"].masked_fill(level, 0.0)
        if args.pass_rate_weight:  # what has no weight is not distilled
            rewards = self.accelerator.gather(batch["rewards"])
            shown = self.accelerator.gather(batch["self_distillation_mask"])
            successes = rewards >= success_threshold(args)
            own = self._own(pass_rate_weights(successes, shown, size, known=~rewards.isnan()))
            batch["sample_weights"] = own
            batch["self_distillation_mask"] = (own > 0).to(shown.dtype)
        self._watched["reward"] = metrics["self_distillation/reward_mean"][-1]
        self._watched["completion length"] = metrics["completions/mean_length"][-1]
        return batch

    def _leave_out_unscored(self, batch: dict[str, Any]) -> None:
        """Takes rollouts without a reward, which TRL counts as 0, out of its figures."""
        unscored = self.rollout_unscored
        metrics = self._metrics["train" if self.model.training else "eval"]
        fraction = unscored.float().mean().item()
        metrics["pgpo/unscored_fraction"].append(fraction)
        if fraction == 0:
            return
        rewards = self.accelerator.gather(batch["rewards"]).masked_fill(unscored, torch.nan)
        size = self.num_generations if self.model.training else self.num_generations_eval
        batch["rewards"] = self._own(rewards)
        batch["advantages"] = self._own(advantages(rewards, size, self.args.scale_rewards))
        for name, figure in reward_figures(rewards).items():
            metrics[f"self_distillation/{name}"][-1] = figure

    def _own(self, values: Tensor) -> Tensor:
        """This rank's part of what all ranks have together."""
        count = len(values) // self.accelerator.num_processes
        start = self.accelerator.process_index * count
        return values[start : start + count]


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


# Reward functions: what they return, text included.


class RewardCheckError(RuntimeError):
    """A reward function failed when it was called before training."""


class RewardTypeError(TypeError):
    """A reward function returned something of another type."""


RewardFunction = Callable[..., Sequence[Any]]


def name_of(function: RewardFunction) -> str:
    """What errors call it."""
    return getattr(function, "__name__", type(function).__name__)


def split_rewards(
    name: str, output: Any, count: int
) -> tuple[list[float | None], list[str | None]]:
    """Takes apart what a reward function returned for `count` completions, into rewards and texts.

    Args:
        output: one entry per completion: a number, None (no opinion), or a pair of that and a
            feedback text (or None) on this completion.

    Raises:
        RewardTypeError: not a list, or an entry of another type.
        ValueError: another length.
    """
    if hasattr(output, "tolist"):  # a NumPy array or a tensor
        output = output.tolist()
    if not isinstance(output, (list, tuple)):
        raise RewardTypeError(
            f"reward function {name!r} must return a list with one entry per completion, "
            f"got {type(output).__name__}"
        )
    if len(output) != count:
        raise ValueError(
            f"reward function {name!r} must return one entry per completion, expected {count}, "
            f"got {len(output)}"
        )
    rewards: list[float | None] = []
    texts: list[str | None] = []
    for index, entry in enumerate(output):
        is_pair = isinstance(entry, (tuple, list)) and len(entry) == 2
        reward, text = entry if is_pair else (entry, None)
        rewards.append(_as_reward(name, index, reward))
        if text is not None and not isinstance(text, str):
            raise RewardTypeError(
                f"reward function {name!r} must return feedback as text, got "
                f"{type(text).__name__} for completion {index}"
            )
        texts.append(text)
    return rewards, texts


def _as_reward(name: str, index: int, reward: Any) -> float | None:
    if reward is None:
        return None
    try:
        if isinstance(reward, (str, bytes)):
            raise TypeError
        return float(reward)
    except (TypeError, ValueError, RuntimeError):  # the last from a tensor of several numbers
        raise RewardTypeError(
            f"reward function {name!r} must return numbers, None or (number, text) pairs, got "
            f"{reward!r} for completion {index}"
        ) from None


class TextReward:
    """A reward function as TRL expects it; the texts of a call go to `deliver`, rewards to TRL."""

    def __init__(
        self, function: RewardFunction, deliver: Callable[[list[str | None]], None]
    ) -> None:
        functools.update_wrapper(self, function, updated=())
        self._function, self._deliver, self._name = function, deliver, name_of(function)
        self._has_warned = False

    def __call__(
        self, prompts: list[Any], completions: list[Any], **columns: Any
    ) -> list[float | None]:
        output = self._function(prompts=prompts, completions=completions, **columns)
        rewards, texts = split_rewards(self._name, output, len(completions))
        self._deliver(texts)
        if not self._has_warned and any(r is not None and math.isnan(r) for r in rewards):
            self._has_warned = True
            logging.getLogger(__name__).warning(  # on every rank, of whose rewards it is
                f"Reward function {self._name!r} returned nan, which counts as None does: this "
                "completion has no reward of this function. Return None to say so, or fix it."
            )
        return rewards

    def check(self, **columns: Any) -> None:
        """Calls the function and looks at what it returns (`split_rewards`); delivers nothing.
        RewardCheckError where it raises."""
        try:
            output = self._function(**columns)
        except Exception as error:
            raise RewardCheckError(
                f"reward function {self._name!r} raised {type(error).__name__} on empty "
                f"completions ({error}), which a model may write; let it return a reward for them, "
                "or set check_rewards=False"
            ) from error
        split_rewards(self._name, output, len(columns["completions"]))


# What is made of rewards.


def advantages(rewards: Tensor, group_size: int, scale: str) -> Tensor:
    """TRL's advantages of rewards (N,), whose groups stand together, by its `scale_rewards`; 0
    where there is none (nan)."""
    groups = rewards.view(-1, group_size)
    pools = {"batch": rewards.view(1, -1), "none": None}
    pool = pools.get(scale, groups)
    unit = 1.0 if pool is None else _deviation(pool)
    centred = (groups - groups.nanmean(dim=1, keepdim=True)) / (unit + 1e-4)
    return torch.where(groups.isnan(), 0.0, centred).flatten()


def are_level(rewards: Tensor, group_size: int) -> Tensor:
    """Which rollouts (N,) are of a group with one reward for all: their advantages are rounding's
    alone, which need not be 0."""
    groups = rewards.view(-1, group_size)
    least, most = groups.nan_to_num(nan=math.inf), groups.nan_to_num(nan=-math.inf)
    return (least.amin(1) >= most.amax(1)).repeat_interleave(group_size)


def success_threshold(args: Any) -> float:
    """`success_reward_threshold` as rewards are kept, in float32: 0.9 is then a success at 0.9."""
    (value,) = struct.unpack("f", struct.pack("f", args.success_reward_threshold))
    return float(value)


def pass_rate_weights(
    successes: Tensor, distilled: Tensor, group_size: int, known: Tensor | None = None
) -> Tensor:
    r"""Weights of the rollouts' distillation losses, from pass rates: (N,), float32.

    .. math:: w_i = \sqrt{\hat p_q (1 - \hat p_q)} \,/\, \overline{w}

    where :math:`\hat p_q` is the share of the successes among the known rollouts of i's question q,
    and the mean :math:`\overline{w}` is over distilled rollouts with a weight above zero: the
    step keeps its size. Rollouts of a question that always or never succeeds have weight 0, and
    those that are not distilled.

    Args:
        successes: which rollouts succeed, (N,), bool; those of a question, of all ranks, stand
            together.
        distilled: which have a teacher context, (N,), non-zero is distilled.
        group_size: rollouts a question.
        known: which rollouts were scored, (N,), bool; None for all.

    Raises:
        ValueError: the shapes differ, or N is no multiple of the group's size.

    Reference: SC-SDPO (arXiv 2605.27765), its weight :math:`[\hat p (1 - \hat p)]^{1/2}`.
    Choice: the abstract calls the normalization batch-adaptive and gives no formula; it is the
    mean over the rollouts that count in the generation batch.
    """
    if successes.shape != distilled.shape or successes.ndim != 1:
        raise ValueError(
            "successes and distilled must be vectors of one length, got shapes "
            f"{tuple(successes.shape)} and {tuple(distilled.shape)}"
        )
    if len(successes) % group_size:
        raise ValueError(
            f"expected whole groups of {group_size} rollouts, found {len(successes)} rollouts"
        )
    known = torch.ones_like(successes) if known is None else known
    counts = [part.view(-1, group_size).sum(1, keepdim=True) for part in (successes & known, known)]
    rate = counts[0].float() / counts[1].clamp(min=1)
    spread = (rate * (1 - rate)).sqrt().expand(-1, group_size).flatten()
    weights = torch.where(distilled != 0, spread, 0.0)
    counted = (weights > 0).sum()
    # Without a rollout that counts, 0 / 1: all zero.
    return weights / torch.where(counted > 0, weights.sum() / counted, 1.0)


def reward_figures(rewards: Tensor) -> dict[str, float]:
    """TRL's figures over the rewards there are; nan, which is not logged, without any."""
    known = rewards[~rewards.isnan()]
    if not len(known):
        return dict.fromkeys(("reward_mean", "reward_std", "reward_min", "reward_max"), math.nan)
    return {
        "reward_mean": known.mean().item(),
        "reward_std": _deviation(known.view(1, -1)).item(),
        "reward_min": known.min().item(),
        "reward_max": known.max().item(),
    }


def _deviation(groups: Tensor) -> Tensor:
    """Standard deviation of each row without its nan, 0 of fewer than two values: (rows, 1)."""
    squares = (groups - groups.nanmean(dim=1, keepdim=True)) ** 2
    count = (~groups.isnan()).sum(dim=1, keepdim=True)
    return (squares.nansum(dim=1, keepdim=True) / (count - 1).clamp(min=1)).sqrt()
