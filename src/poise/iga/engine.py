"""Gradients per domain of LoRA matrices, and what a method makes of them, in one backward pass."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from torch import Tensor, nn
from torch.optim import Optimizer

from ..precision import keep_differentiable
from ..sharding import local
from .adapters import LayerStatistics, RunningMeans, Space, find_adapters
from .direction_space import DirectionSpace
from .domains import DomainBatch, Pass, Weights
from .factor_space import FactorSpace, MaskedSteps
from .settings import IGA, Aggregator
from .weight_space import WeightSpace

_UNFINISHED = (
    "expected engine.finish() after the last micro-batch, found {} without it; call it before "
    "optimizer.step(), or before zero_grad() where a step is dropped"
)


class GradientEngine:
    """Puts a method's gradient into `.grad` of a PEFT model's LoRA factors, in any training loop.

    ::

        engine = GradientEngine(model, IGA())
        for batch in batches:
            for micro in batch:
                with engine.collect(DomainBatch(domains, counts)):
                    losses = ...                      # (K,) mean losses, whatever the forward is
                    engine.backward(losses, share=1 / len(batch))
            engine.finish()
            optimizer.step(); optimizer.zero_grad()

    Between `collect` and its end the model carries hooks; outside it is untouched, also after an
    exception, which ends the step: zero the gradients and begin it anew.

    What is masked of micro-batches and ranks, and where: see `WeightSpace`, `FactorSpace` (of an
    aggregator, too) and `DirectionSpace`.

    Parameters that are no LoRA factors keep their plain gradient, that of share * sum_k w_k L_k.

    Args:
        model: with trainable LoRA adapters.
        method: IGA's settings, or an aggregator of gradients by domain.
        seed: of the random starts of the projection.

    Raises:
        UnsupportedAdapter: a trained adapter that cannot be taken apart by domain, or, for the
            retraction, of which only one factor is trained.
        ValueError: the retraction in several processes.
    """

    def __init__(self, model: nn.Module, method: IGA | Aggregator, seed: int = 0) -> None:
        self.method, self._model = method, model
        self.adapters = find_adapters(model)
        keep_differentiable(model)
        self._needs_steps = isinstance(method, IGA) and method.applied_to == "update"
        self._space: Space
        if isinstance(method, Aggregator) or (method.space == "factor" and not self._needs_steps):
            self._space = FactorSpace(self.adapters, method)
        elif method.space == "factor":
            self._space = MaskedSteps(self.adapters, method)
        elif method.space == "weight":
            self._space = WeightSpace(self.adapters, method, seed)
        else:
            self._space = DirectionSpace(self.adapters, self._needs_steps)
        self._followed: list[Optimizer] = []
        self._pass: Pass | None = None
        # Factors with a gradient of the step that is not finished, and the versions of both.
        self._open: list[tuple[Tensor, int, int]] = []

    def follow(self, optimizer: Optimizer) -> None:
        """Lets a method that is applied to the update act on this optimizer's steps.

        Args:
            optimizer: the torch optimizer itself, no wrapper.

        Raises:
            TypeError: it runs no step hooks.
            ValueError: another engine follows it.
        """
        if not self._needs_steps or any(known is optimizer for known in self._followed):
            return
        if not hasattr(optimizer, "_optimizer_step_pre_hooks"):
            raise TypeError(
                f"expected a torch.optim.Optimizer, found {type(optimizer).__name__}, which runs "
                "no step hooks; pass the optimizer inside, or choose one such as "
                "torch.optim.AdamW, or applied_to='gradient'"
            )
        hooks = vars(optimizer)["_optimizer_step_pre_hooks"].values()
        if any(isinstance(getattr(hook, "__self__", None), GradientEngine) for hook in hooks):
            raise ValueError(
                f"expected an optimizer that no engine follows, found {type(optimizer).__name__} "
                "with one, and both would change its steps; make the optimizer anew"
            )
        optimizer.register_step_pre_hook(self._before_step)
        optimizer.register_step_post_hook(lambda *_: self._space.after_step())
        self._followed.append(optimizer)

    def _before_step(self, *_: object) -> None:
        if self._open:
            raise RuntimeError(_UNFINISHED.format("an optimizer's step"))
        self._space.before_step()

    @contextmanager
    def collect(self, batch: DomainBatch, tau: float | None = None) -> Iterator[None]:
        """Watches one forward and one backward pass.

        Args:
            batch: domains of the sequences.
            tau: this step's temperature of IGA's mask; None is the method's.

        Raises:
            RuntimeError: at the beginning: the model's adapters are others than at first, or the
                step before was taken, or dropped, without `finish`. In the backward pass: of
                another loss than `backward` or `weigh` makes; in weight space, a layer gets its
                gradient in several parts, which cannot be masked as one. At the end: no backward
                pass; a factor got a gradient though its layer's modules were passed over.
            ValueError: another number of domains than before, in direction space or for a mask on
                the update; in factor space than earlier in the step. In the backward pass: a layer
                mixes sequences in its rows. At the end: `predicting` is of other tokens.
        """
        if tau is None:
            tau = self.method.tau if isinstance(self.method, IGA) else 0.0
        if (found := find_adapters(self._model)) != self.adapters:
            raise RuntimeError(
                f"expected the {len(self.adapters)} adapters that the engine was made for, found "
                f"others among {len(found)}: an adapter was added, removed, switched, frozen or "
                "scaled since; make the trainer (or the engine) anew after that"
            )
        self._refuse_unfinished()
        with Pass(batch, tau, self._model) as watched:
            self._pass = watched
            try:
                self._space.attach(watched)
                yield
                watched.check()
                factors = (p for adapter in self.adapters for p in adapter.parameters)
                self._open = [
                    (p, p._version, p.grad._version) for p in factors if p.grad is not None
                ]
            except BaseException:
                self.drop_step()
                raise
            finally:
                self._pass = None
                self._space.detach()

    def backward(self, losses: Tensor, weights: Weights = "equal", share: float = 1.0) -> None:
        """Differentiates share * sum_k w_k L_k, within `collect`, after the forward pass.

        Args:
            losses: (K,) mean losses L_k of the domains; what stands at a domain without tokens is
                not read.
            weights: w_k: "equal" over the domains that have tokens, or by their numbers of
                "tokens", as plain fine-tuning has it.
            share: of the step, e.g. 1 / micro-batches.

        Raises:
            RuntimeError: outside of `collect`; and what `collect` raises in the backward pass.
            ValueError: losses of another shape, a share that is not above 0, no loss tokens.
        """
        self.weigh(losses, weights, share).backward()  # type: ignore[no-untyped-call]

    def weigh(
        self, losses: Tensor, weights: Weights = "equal", share: float = 1.0, scale: float = 1.0
    ) -> Tensor:
        """The loss that `backward` differentiates, for a trainer that does that by itself.

        Args:
            losses: as `backward`'s, as are weights and share.
            scale: by what the trainer multiplies the loss before it differentiates.
        """
        if self._pass is None:
            raise RuntimeError(
                "expected losses of a forward pass within `collect`, found none to watch; call it "
                "inside `with engine.collect(DomainBatch(domains, counts)):`"
            )
        return self._pass.weigh(losses, weights, share, scale)

    def _refuse_unfinished(self) -> None:
        """As far as the host can tell: fused optimizers change no version, and are found out by the
        gradients that are gone, or zeros."""
        if any(p._version != version for p, version, _ in self._open):
            raise RuntimeError(_UNFINISHED.format("the factors changed"))
        grads = [(p.grad, version) for p, _, version in self._open]
        changed = [grad for grad, version in grads if grad is None or grad._version != version]
        if changed and not any(grad is not None and local(grad).any() for grad in changed):
            raise RuntimeError(_UNFINISHED.format("its gradients zeroed"))

    def finish(self, learning_rate: float | None = None) -> None:
        """Completes `.grad` after the last micro-batch, before clipping.

        Args:
            learning_rate: of the step that follows; needed by the retraction alone.

        Raises:
            RuntimeError: a method that is applied to the update follows no optimizer.
            ValueError: a retraction without a learning rate above 0.
        """
        if self._needs_steps and not self._followed:
            raise RuntimeError(
                "applied_to='update' acts on the optimizer's steps; call engine.follow(optimizer) "
                "before the first one"
            )
        self._space.finish(learning_rate)
        self._open = []

    def drop_step(self) -> None:
        """Forgets the micro-batches of a step that is not finished, whose gradients are yours to
        zero."""
        self._space.reset()
        self._open = []

    def statistics(self) -> dict[str, LayerStatistics]:
        """What was seen in each layer since the last call, means over micro-batches."""
        return {layer: LayerStatistics(*means) for layer, means in self.unread.take().items()}

    @property
    def unread(self) -> RunningMeans:
        """What `statistics` will return: a checkpoint between two reads has to keep it."""
        return self._space.statistics

    def state_dict(self) -> dict[str, Tensor]:
        """What carries over from step to step, by layer: the projection's warm starts, or the
        running sums of inputs or of the domains' gradients."""
        return self._space.state_dict()

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Takes `state_dict`'s; ValueError where it is of another model, space or setting."""
        if not isinstance(state, Mapping):
            raise ValueError(
                f"state: expected tensors by name, found {type(state).__name__}; give what "
                "state_dict() returned"
            )
        for name, tensor in state.items():
            expected = self._space.shapes.get(name)
            shape = tuple(tensor.shape) if isinstance(tensor, Tensor) else None
            sizes = zip(shape or (), expected or (), strict=False)
            fits = expected is not None and shape is not None and len(shape) == len(expected)
            if not fits or any(size not in (own, None) for own, size in sizes):
                known = "no such entry" if expected is None else f"shape {expected} (None is any)"
                seen = type(tensor).__name__ if shape is None else f"shape {shape}"
                raise ValueError(
                    f"state, {name!r}: expected {known}, found {seen}; it belongs to another "
                    "model, space or setting"
                )
        self._space.take(state)
