"""What a space of IGA is to the engine: hooks for a pass, gradients for a step, state for a run."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from .domains import Pass
from .statistics import RunningMeans

Shape = tuple[int | None, ...]


class Space:
    """Makes the gradients of a step. What a space does not need does nothing.

    Attributes:
        statistics: (4,) values by layer, the fields of `LayerStatistics`.
    """

    def __init__(self) -> None:
        self.statistics = RunningMeans()

    def attach(self, watched: Pass) -> None:
        """Hooks every layer for one forward and backward pass."""

    def detach(self) -> None:
        """Ends a pass, also an interrupted one."""

    def reset(self) -> None:
        """Forgets the step so far."""

    def finish(self, learning_rate: float | None) -> None:
        """Completes the step's gradients in `.grad`."""

    def before_step(self) -> None:
        """Before the optimizer's step."""

    def after_step(self) -> None:
        """After it."""

    def state_dict(self) -> dict[str, Tensor]:
        """What carries over from step to step."""
        return {}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Takes `state_dict`'s.

        Raises:
            ValueError: it belongs to another model, space or setting.
        """
        if not isinstance(state, Mapping):
            raise ValueError(
                f"state: expected tensors by name, found {type(state).__name__}; give what "
                "state_dict() returned"
            )
        shapes = self._shapes()
        for name, tensor in state.items():
            expected = shapes.get(name)
            found = tuple(tensor.shape) if isinstance(tensor, Tensor) else None
            if expected is None or found is None or not _fits(found, expected):
                known = "no such entry" if expected is None else f"shape {expected} (None is any)"
                seen = type(tensor).__name__ if found is None else f"shape {found}"
                raise ValueError(
                    f"state, {name!r}: expected {known}, found {seen}; it belongs to another "
                    "model, space or setting"
                )
        self._take(state)

    def _shapes(self) -> dict[str, Shape]:
        """What a state may hold; None is any size."""
        return {}

    def _take(self, state: dict[str, Tensor]) -> None:
        """Goes on from a state of the right shapes."""


def _fits(found: Shape, expected: Shape) -> bool:
    sizes = zip(found, expected, strict=False)
    return len(found) == len(expected) and all(y in (x, None) for x, y in sizes)
