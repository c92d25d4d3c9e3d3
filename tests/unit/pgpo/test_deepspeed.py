"""The multiplier of a step that an engine takes group by group, and what its config may not say."""

from __future__ import annotations

import copy
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from accelerate.utils.deepspeed import HfDeepSpeedConfig
from torch import Tensor, nn

from poise import DistanceControl, SignalSum, StepScale, Viscosity, policy_distance
from poise.pgpo.engine_step_scale import EngineStepScale
from poise.pgpo.preflight import refuse_engine_settings

BRAKE = Viscosity(sensitivity=3.0, reference="none")


class _Zero:
    """Steps its optimizer as ZeRO does: once for each group, which is then the only one in sight;
    with `sharded` the parameters are out of sight, but for those of the group at hand."""

    def __init__(self, optimizer: Any, sharded: bool) -> None:
        self.optimizer, self.overflow, self.updates = optimizer, False, 0
        self.params = [group["params"] for group in optimizer.param_groups]
        self.sharded = sharded
        if sharded:
            for group in optimizer.param_groups:
                group["params"] = []

    @property
    def param_groups(self) -> Any:
        return self.optimizer.param_groups

    def step(self) -> None:
        gradients = [p.grad for group in self.params for p in group]
        self.overflow = not all(bool(g.isfinite().all()) for g in gradients if g is not None)
        for params, group in zip(self.params, self.optimizer.param_groups, strict=True):
            if self.overflow:
                return
            if self.sharded:
                group["params"] = params
                self.optimizer.step()
                group["params"] = []
            else:
                groups, self.optimizer.param_groups = self.optimizer.param_groups, [group]
                self.optimizer.step()
                self.optimizer.param_groups = groups

    def update_lp_params(self) -> None:
        self.updates += 1


class _Engine:
    """Steps a scheduler right after the optimizer, as one that its config asks for."""

    device = torch.device("cpu")

    def __init__(self, optimizer: Any, sharded: bool = False, scheduler: Any = None) -> None:
        self.optimizer: Any = _Zero(optimizer, sharded)
        self.sharded, self.scheduler = sharded, scheduler

    def zero_optimization_partition_weights(self) -> bool:
        return self.sharded

    def step(self) -> None:
        self.optimizer.step()
        if self.scheduler is not None:
            self.scheduler.step()


def _model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.LayerNorm(8), nn.Linear(8, 3)).double()


def _optimizer(model: nn.Module, kind: Any = torch.optim.AdamW, **settings: Any) -> Any:
    decayed = [p for p in model.parameters() if p.ndim > 1]
    rest = [p for p in model.parameters() if p.ndim == 1]
    groups = [{"params": decayed, "weight_decay": 0.1}, {"params": rest, "weight_decay": 0.0}]
    if kind is torch.optim.Rprop:
        groups = [{"params": group["params"]} for group in groups]
    return kind(groups, lr=0.05, **settings)


def _log_probs(model: nn.Module) -> Tensor:
    x = torch.arange(20.0, dtype=torch.float64).view(5, 4).sin()
    return model(x).log_softmax(-1)


def _run(scale: StepScale, model: nn.Module, step: Callable[[], None], steps: int = 5) -> list[Any]:
    records = []
    for k in range(steps):
        model.zero_grad()
        (-_log_probs(model)[:, k % 3].mean()).backward()
        scale.observe(SignalSum(torch.tensor(0.3 / (k + 1)), torch.tensor(1.0)))
        step()
        records.append(scale.last)
    return records


@pytest.mark.parametrize("sharded", [False, True])
@pytest.mark.parametrize("keeps_decay", [False, True])
def test_all_groups_have_the_multiplier(sharded: bool, keeps_decay: bool) -> None:
    model = _model()
    theirs = copy.deepcopy(model)
    optimizer = _optimizer(model)
    settings = {"scale_weight_decay": not keeps_decay}
    expected = _run(StepScale(optimizer, BRAKE, **settings), model, optimizer.step)
    engine = _Engine(_optimizer(theirs), sharded)
    found = _run(EngineStepScale(engine, BRAKE, **settings), theirs, engine.step)
    assert found == expected
    assert all(abs(record.multiplier - 1) > 0.05 for record in found), found
    for a, b in zip(theirs.parameters(), model.parameters(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("afterwards", [False, True])
def test_a_step_is_measured_as_a_whole(afterwards: bool) -> None:
    model = _model()
    theirs = copy.deepcopy(model)
    optimizer, engine = _optimizer(model), _Engine(_optimizer(theirs))
    control = DistanceControl(target=0.01, afterwards=afterwards)
    plain = StepScale(optimizer, distance=control, policy=lambda: _log_probs(model))
    ours = EngineStepScale(engine, distance=control, policy=lambda: _log_probs(theirs))
    assert _run(ours, theirs, engine.step) == _run(plain, model, optimizer.step)
    assert (engine.optimizer.updates > 0) == afterwards
    for a, b in zip(theirs.parameters(), model.parameters(), strict=True):
        assert torch.equal(a, b)


def test_an_optimizer_that_does_not_follow_its_rate_is_scaled_afterwards() -> None:
    model = _model()
    theirs = copy.deepcopy(model)
    optimizer = _optimizer(model, torch.optim.Rprop)
    _run(StepScale(optimizer, BRAKE), model, optimizer.step)
    engine = _Engine(_optimizer(theirs, torch.optim.Rprop))
    _run(EngineStepScale(engine, BRAKE), theirs, engine.step)
    assert engine.optimizer.updates == 5
    for a, b in zip(theirs.parameters(), model.parameters(), strict=True):
        assert torch.equal(a, b)
    sharded = _Engine(_optimizer(_model(), torch.optim.Rprop), sharded=True)
    with pytest.raises(ValueError, match="Rprop's steps do not follow"):
        EngineStepScale(sharded, BRAKE)


def test_under_zero_3_the_loop_tells_the_distance() -> None:
    model = _model()
    engine = _Engine(_optimizer(model), sharded=True)
    with pytest.raises(ValueError, match="leave policy out and call moved"):
        EngineStepScale(engine, distance=DistanceControl(), policy=lambda: _log_probs(model))
    scale = EngineStepScale(engine, distance=DistanceControl(first=0.1))
    before = _log_probs(model).detach()
    _run(scale, model, engine.step, 1)
    scale.moved(policy_distance(before, _log_probs(model)))
    assert scale.last.multiplier == 0.1
    assert scale.last.moved > 0


@pytest.mark.parametrize("sharded", [False, True])
def test_a_skipped_step_changes_nothing(sharded: bool) -> None:
    model = _model()
    engine = _Engine(_optimizer(model), sharded)
    scale = EngineStepScale(engine, BRAKE)
    _run(scale, model, engine.step, 1)
    before = copy.deepcopy([model.state_dict(), engine.optimizer.optimizer.state])
    (-_log_probs(model)[:, 0].mean()).backward()
    scale.skip()
    engine.step()
    after = [model.state_dict(), engine.optimizer.optimizer.state]
    for a, b in zip(after[0].values(), before[0].values(), strict=True):
        assert torch.equal(a, b)
    for a, b in zip(after[1].values(), before[1].values(), strict=True):
        assert all(torch.equal(a[name], b[name]) for name in b)
    assert all(p.grad is not None for p in model.parameters())  # the engine's buffers
    _run(scale, model, engine.step, 1)
    assert not torch.equal(model[0].weight, before[0]["0.weight"])


def test_a_step_that_the_engine_leaves_out_is_none() -> None:
    model = _model()
    engine = _Engine(_optimizer(model))
    control = DistanceControl(target=0.01)
    scale = EngineStepScale(engine, distance=control, policy=lambda: _log_probs(model))
    _run(scale, model, engine.step, 2)
    state, last = scale.state_dict(), scale.last
    (_log_probs(model).mean() * torch.nan).backward()
    scale.observe(SignalSum(torch.tensor(0.1), torch.tensor(1.0)))
    scale.skip()
    engine.step()
    assert scale.state_dict() == state
    assert scale.last == last
    assert _run(scale, model, engine.step, 1)[0].moved > 0  # the next is measured again


def test_an_engine_that_passes_the_optimizer_by_is_noticed() -> None:
    model = _model()
    engine = _Engine(_optimizer(model))
    engine.optimizer.step = lambda: None
    EngineStepScale(engine, BRAKE)
    with pytest.raises(RuntimeError, match="stepped past the optimizer"):
        engine.step()


def test_closed_it_leaves_the_engine_as_it_was() -> None:
    model = _model()
    theirs = copy.deepcopy(model)
    optimizer, engine = _optimizer(model), _Engine(_optimizer(theirs))
    scale = EngineStepScale(engine, BRAKE)
    scale.close()
    _run(StepScale(optimizer, Viscosity(sensitivity=0.0)), model, optimizer.step)
    _run(scale, theirs, engine.step)
    for a, b in zip(theirs.parameters(), model.parameters(), strict=True):
        assert torch.equal(a, b)


def test_decoupled_decay_of_deepspeeds_adam_is_known() -> None:
    class FusedAdam(torch.optim.Adam):  # by its name not told from Adam with an L2 penalty
        adam_w_mode = 1

    StepScale(_optimizer(_model(), FusedAdam), BRAKE)
    FusedAdam.adam_w_mode = 0
    with pytest.raises(ValueError, match="passes through the moments"):
        StepScale(_optimizer(_model(), FusedAdam), BRAKE)


def _args(config: dict[str, Any], **settings: Any) -> Any:
    zero = {"stage": 2} | config.pop("zero_optimization", {})
    config = {"gradient_clipping": 1.0, "zero_optimization": zero} | config
    own = {
        "deepspeed_plugin": SimpleNamespace(hf_ds_config=HfDeepSpeedConfig(config)),
        "fp16": False,
        "max_grad_norm": 1.0,
        "steps_per_generation": 2,
        "gradient_accumulation_steps": 2,
        "averages_by_distilled": True,
        "multiplier": "information",
        "tiled_loss": zero["stage"] < 3,
        "exact_resume": zero["stage"] < 3,
        "teacher_from_student": zero["stage"] < 3,
    }
    return SimpleNamespace(**own | settings)


@pytest.mark.parametrize("stage", [1, 2, 3])
def test_a_config_with_zero_is_let_through(stage: int) -> None:
    config = {"zero_optimization": {"stage": stage}, "gradient_clipping": "auto"}
    refuse_engine_settings(_args(config), (None, None))
    refuse_engine_settings(SimpleNamespace(deepspeed_plugin=None), (object(), None))


REFUSED: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "ZeRO stage 0": ({"zero_optimization": {"stage": 0}}, {}),
    "found fp16": ({"fp16": {"enabled": True}}, {}),
    "expected gradient_clipping=1.0 in its config, as max_grad_norm, found 0.5": (
        {"gradient_clipping": 0.5},
        {},
    ),
    "compute_grad_norm": ({"zero_optimization": {"compute_grad_norm": False}}, {}),
    "super_offload": (
        {"zero_optimization": {"offload_optimizer": {"device": "cpu", "super_offload": True}}},
        {},
    ),
    "zenflow": ({"zero_optimization": {"zenflow": {"topk_ratio": 0.1}}}, {}),
    "tensor_parallel.autotp_size=2": ({"tensor_parallel": {"autotp_size": 2}}, {}),
    "ratio=0.5": ({"zero_optimization": {"offload_optimizer": {"ratio": 0.5}}}, {}),
    "expected steps_per_generation=3 to be a multiple": ({}, {"steps_per_generation": 3}),
    "under ZeRO-3 .* these need: tiled_loss=True;": (
        {"zero_optimization": {"stage": 3}},
        {"tiled_loss": True},
    ),
    "under ZeRO-3 .* these need: exact_resume=True, multiplier='distance';": (
        {"zero_optimization": {"stage": 3}},
        {"exact_resume": True, "multiplier": "distance"},
    ),
}


@pytest.mark.parametrize("message", REFUSED)
def test_a_config_that_would_be_wrong_is_refused(message: str) -> None:
    config, settings = REFUSED[message]
    with pytest.raises(ValueError, match=message):
        refuse_engine_settings(_args(copy.deepcopy(config), **settings), (None, None))


def test_an_optimizer_that_would_be_dropped_is_refused() -> None:
    with pytest.raises(ValueError, match="makes the optimizer and the schedule anew"):
        refuse_engine_settings(_args({}), (_optimizer(_model()), None))
