"""IGA under FSDP2: two ranks that share the model in shards are two, or one, that have it whole."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from transformers import BitsAndBytesConfig, LlamaForCausalLM

from poise.iga.domains import DomainBatch
from poise.iga.engine import GradientEngine
from poise.iga.settings import IGA
from tests.engines import fsdp_settings, use_fsdp, whole_weights
from tests.exact import ROUNDING, apart, in_float64, same
from tests.grids import grid
from tests.invariants.iga_worker import make_trainer, run, run_exactly, run_in_shards
from tests.processes import finish, run_ranks
from tests.tiny import save_tiny_model, tiny_config

# Sets in order: rank 0 has the first two of four, rank 1 the others. Every fourth lacks a domain.
SETTINGS = {
    "train_sampling_strategy": "sequential",
    "shuffle_dataset": False,
    "lora_dropout": 0.0,
    "max_steps": 4,
}
DIRECTION = {"space": "direction"}
FACTOR = {"space": "factor"}
UPDATE = {"applied_to": "update"}
EXACT_SVD = {"projection": "exact"}
MICRO_BATCHES = {"gradient_accumulation_steps": 2}
CHECKPOINTED = {"gradient_checkpointing": True}
BY_FSDP = {"fsdp": {"activation_checkpointing": True}}
TIED = {"tied": True}
FULL = {"lora": None}  # without an adapter
# Of two rows, of three, and of one, so that a rank has none.
UNEVEN = {"lora": {"r": 3, "rank_pattern": {"q_proj": 2, "down_proj": 1}}}
HEAD = {"lora": {"target_modules": ["q_proj"], "modules_to_save": ["lm_head"]}}
NO_UNITS = {"fsdp": {"auto_wrap_policy": "NO_WRAP", "transformer_layer_cls_to_wrap": None}}
LAYERS_OF_THEIR_OWN = {"fsdp": {"min_num_params": 60, "transformer_layer_cls_to_wrap": None}}


def _baseline(name: str, **options: Any) -> dict[str, Any]:
    return {"method": name, "method_options": options or None}


CASES: dict[str, dict[str, Any]] = {
    "direction space": DIRECTION,
    "direction space, uneven rows": DIRECTION | UNEVEN,
    "direction space, on the update": DIRECTION | UPDATE | UNEVEN,
    "direction space, micro-batches": DIRECTION | MICRO_BATCHES,
    "direction space, checkpointed": DIRECTION | CHECKPOINTED,
    "direction space, checkpointed by FSDP": DIRECTION | BY_FSDP,
    "direction space, tied head": DIRECTION | TIED,
    "direction space, trained head": DIRECTION | HEAD,
    "direction space, kept gathered": DIRECTION | {"fsdp": {"reshard_after_forward": False}},
    "direction space, no units": DIRECTION | NO_UNITS,
    "direction space, each matrix a unit": DIRECTION | LAYERS_OF_THEIR_OWN,
    "factor space": FACTOR,
    "factor space, on the update": FACTOR | UPDATE | UNEVEN,
    "factor space, micro-batches": FACTOR | MICRO_BATCHES | {"domain_weights": "tokens"},
    "factor space, checkpointed by FSDP": FACTOR | BY_FSDP,
    "factor space, tied head": FACTOR | TIED,
    "weight space, exact": EXACT_SVD,
    "weight space, exact, uneven rows": EXACT_SVD | UNEVEN,
    "weight space, randomized": {},
    "weight space, not projected": {"projection": "none"},
    "weight space, micro-batches, checkpointed": MICRO_BATCHES | CHECKPOINTED,
    "weight space, checkpointed by FSDP": BY_FSDP,
    "weight space, tied head": TIED,
    "weight space, each matrix a unit": LAYERS_OF_THEIR_OWN,
    "erm": _baseline("erm"),
    "erm, full": _baseline("erm") | FULL,
    "erm, full, tied head": _baseline("erm") | FULL | TIED,
    "erm, trained head": _baseline("erm") | HEAD,
    "vrex": _baseline("vrex"),
    "irm": _baseline("irm"),
    "fishr": _baseline("fishr"),
    "fishr, full": _baseline("fishr") | FULL,
    "fishr, full, tied head": _baseline("fishr") | FULL | TIED,
    "fishr, trained head": _baseline("fishr") | HEAD,
    "fishr, checkpointed by FSDP": _baseline("fishr") | BY_FSDP,
    "group_dro": _baseline("group_dro", step_size=0.5),
    "and_mask": _baseline("and_mask"),
    "sand_mask": _baseline("sand_mask"),
    "pcgrad": _baseline("pcgrad"),
    "mgda, of TorchJD": _baseline("torchjd:MGDA"),
}
QUICK = ("direction space, on the update", "weight space, micro-batches, checkpointed")


@pytest.mark.parametrize("case", grid(CASES, QUICK))
def test_two_ranks_in_shards_equal_two_with_whole_models(case: str, tmp_path: Path) -> None:
    settings = SETTINGS | CASES[case]
    steps = settings.get("gradient_accumulation_steps", 1)
    settings["per_device_train_batch_size"] = 6 // steps
    model = _model(tmp_path, settings)
    config = settings.pop("fsdp", {})
    run_ranks(2, run_exactly, model, str(tmp_path / "whole"), settings)
    run_ranks(2, run_in_shards, model, str(tmp_path / "shards"), settings, config)
    _assert_close(tmp_path / "shards", tmp_path / "whole")


@pytest.mark.slow
@pytest.mark.parametrize("case", [DIRECTION, FACTOR, FACTOR | UPDATE])
def test_two_ranks_in_shards_equal_one(case: dict[str, Any], tmp_path: Path) -> None:
    """By tokens, so that the plain gradient is the same on two ranks."""
    settings = SETTINGS | {"domain_weights": "tokens"} | UNEVEN | case
    model, halved = _model(tmp_path, settings), {"per_device_train_batch_size": 6}
    finish(run_exactly, model, str(tmp_path / "one"), settings)
    run_ranks(2, run_in_shards, model, str(tmp_path / "two"), settings | halved, {})
    _assert_close(tmp_path / "two", tmp_path / "one")


def _model(folder: Path, settings: dict[str, Any]) -> str:
    tied = settings.pop("tied", False)
    return save_tiny_model(folder / "model", dtype=torch.float64, tie_word_embeddings=tied)


def _assert_close(found: Path, expected: Path) -> None:
    """The weights that were trained, and all that was logged but times."""
    start = load_file(expected.parent / "model" / "model.safetensors")
    shards, whole = (load_file(path / "final.safetensors") for path in (found, expected))
    trained = {n for n, w in whole.items() if n not in start or not torch.equal(w, start[n])}
    trained = {name for name in trained if "lora_" in name or "modules_to_save" in name} or trained
    assert apart(*({n: w[n] for n in trained} for w in (shards, whole))) <= ROUNDING
    assert any(bool(whole[n].any()) for n in trained if "lora_A" not in n)
    for file in ("metrics.jsonl", "layers.jsonl"):
        logs = [_figures(path / file) for path in (found, expected)]
        assert len(logs[0]) == len(logs[1]) and logs[0].keys() == logs[1].keys()
        assert logs[0] == pytest.approx(logs[1], rel=1e-9, abs=ROUNDING)


def _figures(path: Path) -> dict[str, float]:
    """Every number by its place."""
    lines = path.read_text().splitlines() if path.is_file() else []
    result: dict[str, float] = {}

    def walk(value: Any, place: str) -> None:
        if isinstance(value, dict):
            for name, part in value.items():
                walk(part, f"{place}.{name}")
        elif isinstance(value, int | float) and not place.endswith(("runtime", "per_second")):
            result[place] = value

    for number, line in enumerate(lines):
        walk(json.loads(line), str(number))
    return result


# A run that is killed.

SAVED = {"save_strategy": "steps", "save_steps": 2, "max_steps": 8}
SAVED |= {"per_device_train_batch_size": 6}
IN_SHARDS = {"state_dict_type": "SHARDED_STATE_DICT"}
WHOLE = {"state_dict_type": "FULL_STATE_DICT"}
RESUMED: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "direction space, on the update": (DIRECTION | UPDATE | UNEVEN, WHOLE),
    "direction space, in shards": (DIRECTION | MICRO_BATCHES, IN_SHARDS),
    "factor space, on the update, in shards": (FACTOR | UPDATE | UNEVEN, IN_SHARDS),
    "weight space": ({"tau_schedule": "linear", "tau_warmup_steps": 9}, WHOLE),
    "weight space, in shards": ({}, IN_SHARDS),
    "weight space, checkpointed by FSDP": ({}, WHOLE | BY_FSDP["fsdp"]),
    "direction space, four bits": (DIRECTION | {"four_bits": torch.float32}, IN_SHARDS),
    "group_dro": (_baseline("group_dro", step_size=0.5), WHOLE),
    "erm, full, in shards": (_baseline("erm") | FULL, IN_SHARDS),
}


@pytest.mark.parametrize("case", grid(RESUMED, ["weight space, in shards"]))
def test_a_killed_run_goes_on_as_if_it_had_not_been(
    case: str, tmp_path: Path, tiny_model_path: str
) -> None:
    if "bits" in case:
        pytest.importorskip("bitsandbytes")
    own, config = RESUMED[case]
    settings, folders = SAVED | own, [str(tmp_path / "whole"), str(tmp_path / "killed")]
    run_ranks(2, _run, tiny_model_path, folders[0], settings, config)
    run_ranks(2, _run, tiny_model_path, folders[1], settings | {"dies_at": 5}, config)
    assert not (tmp_path / "killed" / "final.safetensors").exists()
    run_ranks(2, _run, tiny_model_path, folders[1], settings, config, True)
    whole, resumed = (load_file(f"{folder}/final.safetensors") for folder in folders)
    assert same(resumed, whole)
    logs = [_figures(Path(folder) / "metrics.jsonl") for folder in folders]
    last = [{k: v for k, v in log.items() if "train_" not in k} for log in logs]
    assert last[0] == last[1]


def _run(model: str, folder: str, settings: Any, config: Any, resume: Any = None) -> None:
    use_fsdp()
    run(model, folder, settings | fsdp_settings(**config), resume)


@pytest.mark.slow
@pytest.mark.parametrize("case", [DIRECTION, FACTOR | UPDATE, EXACT_SVD])
def test_products_in_bfloat16_are_those_of_whole_models(
    case: dict[str, Any], tmp_path: Path, tiny_model_path: str
) -> None:
    """The policy of FSDP2 in autocast's place; factors and their gradients stay in float32."""
    settings = SETTINGS | {"bf16": True, "optim": "sgd", "per_device_train_batch_size": 6} | case
    run_ranks(2, run, tiny_model_path, str(tmp_path / "whole"), settings)
    run_ranks(2, _run, tiny_model_path, str(tmp_path / "shards"), settings, {})
    whole, shards = (load_file(tmp_path / n / "final.safetensors") for n in ("whole", "shards"))
    assert {weight.dtype for name, weight in shards.items() if "lora_" in name} == {torch.float32}
    assert shards.keys() == whole.keys()
    logs = [_figures(tmp_path / n / "metrics.jsonl") for n in ("whole", "shards")]
    # Means over some tens of tokens, each with bfloat16's rounding on its way.
    for name in ("0.loss", "0.grad_norm", "0.iga/loss/law"):
        assert logs[1][name] == pytest.approx(logs[0][name], rel=0.1), name


# Somebody's own loop.


def _own_loop(folder: str, method: IGA, mesh: tuple[int, ...]) -> None:
    """Three steps; writes the adapter, and counts the sums over ranks of the engine's finish."""
    dist.init_process_group("gloo")
    rank, counts = dist.get_rank(), []
    with in_float64():
        torch.manual_seed(0)
        model = get_peft_model(
            LlamaForCausalLM(tiny_config()), LoraConfig(r=3, target_modules="all-linear")
        )
        names = ("replicas", "shards")[-len(mesh) :]
        options: Any = {"mesh": init_device_mesh("cpu", mesh, mesh_dim_names=names)}
        for layer in model.get_base_model().model.layers:
            fully_shard(layer, **options)
        fully_shard(model, **options)
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
        engine = GradientEngine(model, method)
        engine.follow(optimizer)
        random = torch.Generator().manual_seed(1)
        for _ in range(3):
            ids = torch.randint(3, 40, (2, 4, 7), generator=random)[rank]
            batch = DomainBatch(torch.tensor([0, 1, 0, 1]), torch.tensor([12.0, 12.0]))
            with engine.collect(batch):
                logits = model(input_ids=ids).logits[:, :-1]
                tokens = -logits.log_softmax(-1).gather(2, ids[:, 1:, None])[..., 0]
                engine.backward(torch.stack([tokens[0::2].mean(), tokens[1::2].mean()]))
            counts.append(_sums_over_ranks(engine.finish))
            optimizer.step()
            optimizer.zero_grad()
        weights = whole_weights(model)
    assert max(counts) <= 3  # of 14 layers
    if rank == 0:
        save_file({n: w for n, w in weights.items() if "lora_" in n}, f"{folder}/{len(mesh)}")


def _sums_over_ranks(work: Any) -> int:
    calls = []
    with pytest.MonkeyPatch.context() as patch:
        reduce = dist.all_reduce
        patch.setattr(dist, "all_reduce", lambda *args: calls.append(1) or reduce(*args))
        for name in ("all_gather", "all_gather_into_tensor", "broadcast"):
            patch.setattr(dist, name, None)
        work()
    return len(calls)


@pytest.mark.parametrize(
    "method",
    grid(
        [IGA(), IGA(applied_to="update"), IGA("factor", applied_to="update"), IGA("weight")],
        [],
    ),
)
def test_ranks_that_hold_the_same_rows_count_once(method: IGA, tmp_path: Path) -> None:
    """Two copies of a model (HSDP) step as two shards do, with as few sums over ranks."""
    for mesh in ((2,), (2, 1)):
        run_ranks(2, _own_loop, str(tmp_path), method, mesh)
    shards, copies = (load_file(tmp_path / name) for name in "12")
    assert apart(copies, shards) <= ROUNDING
    assert any(bool(weight.any()) for name, weight in shards.items() if "lora_B" in name)


# What is refused, before training.

REFUSED: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "FSDP1": ({}, {"version": 1, "sync_module_states": False}, "cannot run under FSDP1"),
    "rank 0 alone loads": ({}, {"cpu_ram_efficient_loading": True}, "set it to False"),
    "retraction": (
        {
            "iga_space": "weight",
            "iga_update": "retraction",
            "optim": "sgd",
            "weight_decay": 0.0,
            "max_grad_norm": 0.0,
        },
        {},
        "retraction",
    ),
    "offloaded": ({}, {"cpu_offload": True}, "with FSDP's cpu_offload"),
}


def _refused(model: str, folder: str, settings: Any, config: Any, message: str) -> None:
    use_fsdp()
    with pytest.raises(ValueError, match=message), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # transformers deprecates FSDP1 as well
        make_trainer(model, folder, **settings | fsdp_settings(**config))


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_run_is_refused(case: str, tmp_path: Path, tiny_model_path: str) -> None:
    run_ranks(2, _refused, tiny_model_path, str(tmp_path), *REFUSED[case])


QUANTISED: dict[str, tuple[dict[str, Any], str]] = {
    "8 bits": ({"load_in_8bit": True}, "cannot shard a base of 8 bits"),
    "4 bits, saved whole": ({"load_in_4bit": True}, "or SHARDED_STATE_DICT"),
}


def _quantised(model: str, folder: str, bits: dict[str, Any], message: str) -> None:
    init = {"model_init_kwargs": {"quantization_config": BitsAndBytesConfig(**bits)}}
    _refused(model, folder, init | {"save_strategy": "steps"}, WHOLE, message)


@pytest.mark.parametrize("case", QUANTISED)
def test_a_quantised_base_that_cannot_be_sharded_is_refused(
    case: str, tmp_path: Path, tiny_model_path: str
) -> None:
    pytest.importorskip("bitsandbytes")
    run_ranks(2, _quantised, tiny_model_path, str(tmp_path), *QUANTISED[case])
