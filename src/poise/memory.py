"""What a training run keeps on each GPU, counted before it starts.

Model, adapters, teacher and the optimizer's state are made on the meta device, where tensors have
shapes and no memory, by what makes them in a run; what an engine leaves of each on a rank is
counted tensor by tensor. What lives for a part of a step alone is counted by shapes.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from peft import PeftModel
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from transformers import AttentionInterface, AutoConfig, AutoModelForCausalLM, Trainer

from .iga.adapters import find_adapters
from .loss.tiled import default_tile_tokens
from .pgpo.teacher import EMATeacher, add_teacher_adapter, copy_as_teacher

ALWAYS, ROLLOUTS, TRAINING = "always", "rollouts", "training"
_ALL = frozenset({"weights", "gradients", "optimizer", "teacher"})
# Engine -> what it leaves a share of on each rank.
SHARDED: dict[str, frozenset[str]] = {
    "ddp": frozenset(),
    "zero0": frozenset(),
    "zero1": frozenset({"optimizer"}),
    "zero2": frozenset({"optimizer", "gradients"}),
    "zero3": _ALL,
    "fsdp2": _ALL,
}
# Tensors of a tile's tokens x vocabulary, and of TRL's losses all tokens x vocabulary, in float32,
# that live at the peak: benchmarks/loss_memory.py counts them.
_TILES, _TRL, _TRL_TOPK = 10, 14, 6
_LIVE = 1_000_000_000  # DeepSpeed's stage3_max_live_parameters


class Part(NamedTuple):
    """Something that takes memory on each GPU: bytes of the rank that has most, "always", while
    "rollouts" are made, or in "training" passes."""

    name: str
    bytes: int
    when: str = ALWAYS


@dataclass(frozen=True)
class Layout:
    """Where a run's tensors lie: an engine of `SHARDED`, its ranks, and in what products are, the
    model's own precision or autocast's.

    Raises:
        ValueError: an unknown engine, or fewer ranks than one.
    """

    engine: str = "ddp"
    ranks: int = 1
    compute: torch.dtype = torch.float32

    def __post_init__(self) -> None:
        if self.engine not in SHARDED:
            raise ValueError(f"engine: expected one of {', '.join(SHARDED)}, found {self.engine!r}")
        if self.ranks < 1:
            raise ValueError(f"ranks: expected 1 or more, found {self.ranks}")

    def share(self, tensor: Tensor, of: str) -> int:
        """Bytes of a tensor on the rank that has most: FSDP2 deals out rows, ZeRO elements."""
        if of not in SHARDED[self.engine] or tensor.ndim == 0:
            return tensor.nbytes
        if self.engine == "fsdp2":
            return tensor[: math.ceil(len(tensor) / self.ranks)].nbytes
        return math.ceil(tensor.numel() / self.ranks) * tensor.element_size()

    def shares(self, tensors: Iterable[Tensor], of: str) -> int:
        """Bytes of several on that rank."""
        return sum(self.share(tensor, of) for tensor in tensors)

    @property
    def is_mixed(self) -> bool:
        """Whether products have another precision than float32."""
        return self.compute != torch.float32


def meta_model(path: str, dtype: torch.dtype, peft_config: Any = None) -> Any:
    """The model of a folder or hub id, its adapters put on, on the meta device."""
    config = AutoConfig.from_pretrained(path)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, dtype=dtype)
        return model if peft_config is None else PeftModel(model, peft_config)


# What stays.


def states(model: Any, args: Any, layout: Layout) -> list[Part]:
    """Weights, gradients, optimizer: what the engine makes of a model on the meta device, which is
    changed as the engine changes it."""
    trained = [p for p in model.parameters() if p.requires_grad]
    masters: list[nn.Parameter] = []
    if layout.engine == "fsdp2" and layout.is_mixed:
        for param in trained:
            param.data = param.data.float()
    elif layout.engine.startswith("zero"):
        # DeepSpeed: the model in the precision of products, and the optimizer's own float32 weights
        model.to(layout.compute)
        masters = [nn.Parameter(torch.empty_like(p, dtype=torch.float32)) for p in trained]
    buffers = sum(buffer.nbytes for buffer in model.buffers())
    moments = optimizer_states(masters or trained, args)
    buckets = trained if layout.engine == "ddp" and layout.ranks > 1 else []
    # Autocast keeps a cast of each trained weight of a product until its context ends.
    linear = {m.weight for m in model.modules() if isinstance(m, nn.Linear)}
    is_cast = layout.engine == "ddp" and layout.is_mixed
    cast = [w for w in linear if is_cast and w.requires_grad and w.dtype == torch.float32]
    return [
        Part("weights", layout.shares(model.parameters(), "weights") + buffers),
        Part("gradients", layout.shares(trained, "gradients")),
        Part("float32 masters", layout.shares(masters, "optimizer")),
        Part(
            f"optimizer's state ({getattr(args.optim, 'value', args.optim)})",
            layout.shares(moments, "optimizer"),
        ),
        Part("DDP's buckets, as large as the gradients", sum(p.nbytes for p in buckets)),
        Part("autocast's copies of trained weights", layout.compute.itemsize * _numbers(cast)),
    ]


def optimizer_states(params: Sequence[nn.Parameter], args: Any) -> Iterator[Tensor]:
    """What the optimizer of these arguments keeps after a step on these parameters.

    Raises:
        ValueError: one that does not run on the meta device.
    """
    kind, settings = Trainer.get_optimizer_cls_and_kwargs(args)
    settings.pop("fused", None)  # not there on meta; it keeps the same
    optimizer = kind(params, **settings)
    for param in params:
        param.grad = torch.empty_like(param)
    try:
        optimizer.step()
    except Exception as error:
        raise ValueError(
            f"optim={args.optim!r} cannot be counted: {kind.__name__} takes no step on tensors "
            f"without memory ({error}); count with adamw_torch"
        ) from error
    for state in optimizer.state.values():
        yield from (value for value in state.values() if isinstance(value, Tensor))


def teacher_states(model: Any, args: Any, layout: Layout) -> list[Part]:
    """The teacher of a PGPOConfig, as `TeacherMixin` makes it; before `states`, since an adapter
    may be put on the model."""
    kind, is_lora = args.teacher_model_kind, isinstance(model, PeftModel)
    changes = kind == "ema" or args.teacher_refresh != "never"
    if kind == "live" or (is_lora and not changes):
        return []
    if is_lora:
        with torch.device("meta"):
            add_teacher_adapter(model, from_student=args.teacher_from_student)
        return []  # counted with the weights
    copy = copy_as_teacher(model)
    if layout.engine in ("zero1", "zero2") and layout.is_mixed:
        copy.to(layout.compute)  # as the engine casts the student
    averages: Iterable[Tensor] = []
    if kind == "ema":
        teacher = EMATeacher(model, copy, args.teacher_update_rate, args.teacher_sync_steps)
        averages = teacher._averages().values()
    buffers = sum(buffer.nbytes for buffer in copy.buffers())
    return [
        Part("teacher", layout.shares(copy.parameters(), "teacher") + buffers),
        Part("teacher's float32 averages", layout.shares(averages, "teacher")),
    ]


def gathered(model: Any, layout: Layout, has_teacher: bool) -> list[Part]:
    """What an engine that shards weights holds whole at a time."""
    numbers = [p.numel() for p in model.parameters()]
    width = layout.compute.itemsize
    if layout.engine == "zero3":
        return [Part(f"gathered weights, at most {_LIVE:,}", width * min(_LIVE, sum(numbers)))]
    if layout.engine != "fsdp2" or layout.ranks == 1:
        return []
    causal = model.get_base_model() if isinstance(model, PeftModel) else model
    names = causal._no_split_modules or ()  # the repeated blocks, which FSDP2 makes units of
    layers = [m for m in causal.modules() if type(m).__name__ in names] or [causal]
    layer = max(_numbers(layer.parameters()) for layer in layers)
    head = model.get_output_embeddings().weight
    ends = {model.get_input_embeddings().weight, head}
    is_trained = any(param.requires_grad for param in ends)
    own = width * (layer + _numbers(ends))
    return [
        Part("gathered: two layers, embeddings and head", own + width * layer),
        Part("gathered: the teacher's head", has_teacher * width * head.numel(), TRAINING),
        Part("gradients of a layer, embeddings and head", is_trained * own, TRAINING),
    ]


# What lives for a part of a step.


def distillation(model: Any, args: Any, layout: Layout) -> list[Part]:
    """The tensors of PGPO's loss of one micro-batch."""
    head = model.get_output_embeddings().weight
    vocabulary, width = head.shape
    tokens = args.per_device_train_batch_size * args.max_completion_length
    states_ = tokens * width * layout.compute.itemsize
    if not args.tiled_loss:
        tensors = _TRL if args.distillation_mode == "full_logits" else _TRL_TOPK
        name = f"TRL's loss: {tensors} tensors of tokens x vocabulary"
        return [Part(name, tensors * tokens * vocabulary * 4, TRAINING)]
    tile = min(tokens, args.loss_tile_tokens or default_tile_tokens(vocabulary, width, "cuda"))
    return [
        Part("hidden states of student and teacher, a gradient", 3 * states_, TRAINING),
        Part(f"the loss's tiles of {tile} tokens", _TILES * tile * vocabulary * 4, TRAINING),
        Part("the head's gradient in float32", head.requires_grad * 4 * head.numel(), TRAINING),
    ]


def rollouts(model: Any, args: Any, layout: Layout) -> list[Part]:
    """Keys and values of the rollouts, all of a generation batch at a time, and their logits."""
    if args.use_vllm:
        share = f"{args.vllm_gpu_memory_utilization:.0%} of the GPU, vllm_gpu_memory_utilization"
        return [Part(f"vLLM, not counted: {share}", 0, ROLLOUTS)]
    config = model.config.get_text_config()
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    rows = args.per_device_train_batch_size * args.steps_per_generation
    tokens = rows * ((args.max_prompt_length or 0) + args.max_completion_length)
    token = 2 * config.num_hidden_layers * heads * width * layout.compute.itemsize
    return [
        Part(f"keys and values of {rows} rollouts", tokens * token, ROLLOUTS),
        Part("their logits", 2 * rows * config.vocab_size * 4, ROLLOUTS),
    ]


def activations(model: Any, args: Any, layout: Layout, rows: int, tokens: int) -> list[Part]:
    """What layers save for the backward of a micro-batch of rows x tokens.

    Counted in a forward pass on the meta device, with attention that saves no square matrix.
    """
    config = model.config.get_text_config()
    count = config.num_hidden_layers
    try:
        total = _saved_by_layers(model, layout.compute, rows, tokens)
    except (NotImplementedError, RuntimeError) as error:
        return [Part(f"activations, not counted: {str(error).splitlines()[0]}", 0, TRAINING)]
    if not args.gradient_checkpointing:
        return [Part(f"what {count} layers save of {rows} x {tokens} tokens", total, TRAINING)]
    inputs = count * rows * tokens * config.hidden_size * layout.compute.itemsize
    return [
        Part(f"inputs of {count} layers, {rows} x {tokens} tokens, checkpointed", inputs, TRAINING),
        Part("what one layer saves", total // count, TRAINING),
    ]


def _saved_by_layers(model: Any, dtype: torch.dtype, rows: int, tokens: int) -> int:
    """Bytes of the storages that autograd saves in a forward pass, each once; casts the model."""
    saved: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        saved.setdefault(tensor.untyped_storage()._cdata, tensor)
        return tensor

    causal = model.get_base_model() if isinstance(model, PeftModel) else model
    AttentionInterface.register("poise_memory", _flash_attention)
    causal.set_attn_implementation("poise_memory")
    for param in model.parameters():
        param.data = param.data.to(dtype)
    ids = torch.zeros((rows, tokens), dtype=torch.long, device="meta")
    with saved_tensors_hooks(keep, lambda tensor: tensor):
        causal.base_model.train()(input_ids=ids, use_cache=False)
    for tensor in [*model.parameters(), *model.buffers()]:
        saved.pop(tensor.untyped_storage()._cdata, None)
    return sum(tensor.untyped_storage().nbytes() for tensor in saved.values())


def _flash_attention(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, *rest: Any, **options: Any
) -> tuple[Tensor, None]:
    """Saves queries, keys, values, outputs and a number a row, as kernels without a square do."""
    output = torch.ops.aten._scaled_dot_product_flash_attention(query, key, value, 0.0, True)[0]
    return output.transpose(1, 2), None


def domain_gradients(model: Any, args: Any, domains: int) -> list[Part]:
    """What IGA's spaces keep of K domains."""
    if args.iga_method == "erm":
        return []
    adapters = [(a.down.weight, a.up.weight) for a in find_adapters(model)]
    if args.iga_method != "iga" or args.iga_space == "factor":
        has_sums = args.iga_method == "iga" and args.iga_applied_to == "update"  # running ones
        factors = _numbers(weight for pair in adapters for weight in pair)
        return [Part(f"gradients of {domains} domains", (1 + has_sums) * domains * factors * 4)]
    if args.iga_space == "direction":
        numbers = 0
        for down, up in adapters:
            numbers += 2 * 2 * domains * (down.shape[1] + 1)
            numbers += 2 * (domains - 1) * (down.shape[1] + up.shape[0])
        return [Part(f"input sums and directions of {domains} domains", 4 * numbers)]
    largest = max(down.shape[1] * up.shape[0] for down, up in adapters)
    name = f"{domains} gradients of one layer, mean, variance and tile"
    return [Part(name, (domains + 3) * largest * 4, TRAINING)]


def _numbers(tensors: Iterable[Tensor]) -> int:
    return sum(tensor.numel() for tensor in tensors)


def peak(parts: Iterable[Part]) -> int:
    """Bytes of what is there always, and of the phase that takes more."""
    total = dict.fromkeys((ALWAYS, ROLLOUTS, TRAINING), 0)
    for part in parts:
        total[part.when] += part.bytes
    return total[ALWAYS] + max(total[ROLLOUTS], total[TRAINING])
