"""From a name on the command line to a model that answers.

Nothing here runs code from a model's folder, and weights are read as safetensors only.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from ..models import expanded, fold_output_head, is_in_a_folder, resolve_model

ADAPTER = "adapter_config.json"
ADAPTER_WEIGHTS = "adapter_model.safetensors"


@dataclass(frozen=True)
class Target:
    """A model to evaluate."""

    model: str  # local path or hub id of the base model
    adapter: str | None  # folder of a PEFT adapter upon it
    name: str  # what tables call it
    run: Path | None = None  # the run folder that it comes from


def find_target(name: str | None, *, adapter: str | None = None, base: str | None = None) -> Target:
    """What a name on the command line stands for.

    Args:
        name: A folder of an adapter, run or model, a hub id, or None for the default model.
        adapter: Folder of an adapter to put upon it.
        base: Base model of adapters; None takes the one that the adapter was trained on.

    Raises:
        FileNotFoundError: `adapter` is no adapter's folder, or nothing is at `name`.
        ValueError: The name is no model.
    """
    if adapter is not None:
        if (found := _find_adapter(expanded(adapter))) is None:
            raise FileNotFoundError(f"expected a folder with {ADAPTER} at {adapter}, found none")
        return Target(resolve_model(name or _base_of(found)), str(found), _label(adapter))
    if name is None:
        return Target(resolve_model(None), None, "default")
    folder = expanded(name)
    run = folder if (folder / "metrics.jsonl").is_file() else None
    if (found := _find_adapter(folder)) is not None:
        return Target(resolve_model(base or _base_of(found)), str(found), _label(name), run)
    if not folder.exists() and is_in_a_folder(name):
        raise FileNotFoundError(
            f"expected a run folder, an adapter or a model at {folder}, found nothing"
        )
    return Target(resolve_model(name), None, _label(name), run)


def _find_adapter(folder: Path) -> Path | None:
    places = (folder, folder / "adapter")
    return next((place for place in places if (place / ADAPTER).is_file()), None)


def _base_of(adapter: Path) -> str:
    try:
        name = json.loads((adapter / ADAPTER).read_text()).get("base_model_name_or_path")
    except (ValueError, AttributeError) as error:
        raise ValueError(f"{adapter / ADAPTER}: expected a JSON object: {error}") from error
    if not name:
        raise ValueError(f"{adapter / ADAPTER} names no base model; give it with --model")
    return str(name)


def _label(name: str) -> str:
    return Path(name).name or name


def fingerprint(target: Target) -> str | None:
    """Digest of the weights, None for a model that is not on this machine as files."""
    digest = hashlib.sha256()
    for folder in filter(None, (target.model, target.adapter)):
        # What a checkpoint holds for a resume is no weight of the model.
        files = [f for f in Path(folder).glob("*.safetensors") if not f.name.startswith("poise_")]
        if not files:
            return None
        for path in sorted(files):
            with path.open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:16]


def check_target(target: Target) -> Any:
    """The model's configuration.

    Raises:
        ValueError: Model or adapter's weights are not there, as `load` would find out later.
    """
    from transformers import AutoConfig

    with _named(target):
        config = AutoConfig.from_pretrained(target.model, trust_remote_code=False)
    if target.adapter is not None and not (Path(target.adapter) / ADAPTER_WEIGHTS).is_file():
        raise ValueError(f"adapter {target.adapter}: expected {ADAPTER_WEIGHTS}, found none")
    return config.get_text_config()


def load_tokenizer(target: Target) -> Any:
    """The adapter's own tokenizer where it was saved with one, whose chat template may differ."""
    from transformers import AutoTokenizer

    has_own = target.adapter and (Path(target.adapter) / "tokenizer_config.json").is_file()
    source = target.adapter if has_own else target.model
    with _named(target):
        return AutoTokenizer.from_pretrained(source, trust_remote_code=False)


def load(target: Target, dtype: torch.dtype, device: torch.device) -> tuple[Any, Any]:
    """Model and tokenizer, ready to answer.

    Choice: an adapter is merged into float32 weights, which is faster; not into bfloat16 ones,
    whose rounding would swallow small changes of the weights, and not into a weight that embeddings
    and head share, of which the adapter is to change one.

    Raises:
        ValueError: The model cannot be loaded, or the adapter does not fit it.
    """
    from transformers import AutoModelForCausalLM, GenerationConfig

    check_target(target)
    tokenizer = load_tokenizer(target)
    with _named(target):
        model = AutoModelForCausalLM.from_pretrained(
            target.model, dtype=dtype, use_safetensors=True, trust_remote_code=False
        )
    # Its end tokens alone: what is not asked for, as a top_k of the model's own, shapes no sample.
    model.generation_config = GenerationConfig(eos_token_id=model.generation_config.eos_token_id)
    if target.adapter is not None:
        model = _with_adapter(model, Path(target.adapter))
        if dtype == torch.float32 and not _adapts_a_shared_weight(model):
            model = model.merge_and_unload()
    fold_output_head(model)
    return model.to(device).eval(), tokenizer


@contextmanager
def _named(target: Target) -> Iterator[None]:
    """What transformers cannot find or read becomes a ValueError that names the model."""
    try:
        yield
    except OSError as error:
        reason = str(error).strip().splitlines()[0]
        kind = "" if Path(target.model).is_dir() else "no such folder is here, and as a hub id: "
        raise ValueError(f"model {target.model!r} cannot be loaded: {kind}{reason}") from error


def _with_adapter(model: Any, adapter: Path) -> Any:
    from peft import PeftModel

    try:
        _resize_vocabulary(model, adapter / ADAPTER_WEIGHTS)
        return PeftModel.from_pretrained(model, str(adapter))
    except (RuntimeError, ValueError, KeyError, SafetensorError) as error:
        reason = " ".join(line.strip() for line in str(error).strip().splitlines()[:2])
        raise ValueError(
            f"adapter {adapter} does not fit the model {model.config.name_or_path!r}: {reason}"
        ) from error


def _resize_vocabulary(model: Any, weights: Path) -> None:
    """Gives a model the tokens that it had when its adapter was trained."""
    embeddings = model.get_input_embeddings()
    name = next(name for name, module in model.named_modules() if module is embeddings)
    with safe_open(weights, "pt") as file:
        for key in file.keys():  # noqa: SIM118 (no mapping)
            if key.replace(".base_layer", "") == f"base_model.model.{name}.weight":
                rows = file.get_slice(key).get_shape()[0]
                if rows != embeddings.weight.shape[0]:
                    model.resize_token_embeddings(rows, mean_resizing=False)


def _adapts_a_shared_weight(model: Any) -> bool:
    from peft.tuners.tuners_utils import BaseTunerLayer

    ends = model.get_input_embeddings(), model.get_output_embeddings()
    return ends[0].weight is ends[1].weight and any(isinstance(e, BaseTunerLayer) for e in ends)
