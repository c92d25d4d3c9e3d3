"""What the mask and the projection did in each layer."""

from __future__ import annotations

from typing import NamedTuple

from .running_means import RunningMeans


class LayerStatistics(NamedTuple):
    """One layer in a step, all without a unit.

    In direction space `mask_mean` is the share of directions that stay and `suppressed_energy` that
    of A's gradient which goes; domains are not compared, and the others read 1.

    Args:
        mask_mean: mean of the mask, in (0, 1].
        suppressed_energy: 1 - |M * G|^2 / |G|^2.
        agreement: mean cosine between the domains' gradients, weighted by their norms; see
            `core.conflict.agreement`.
        rank_energy: |P|^2 / |M * G|^2, what the projection keeps; 1 without a projection.
    """

    mask_mean: float
    suppressed_energy: float
    agreement: float
    rank_energy: float


class StatisticsLog(RunningMeans):
    """Means of the layers' statistics; what is added are (4,) values, the fields."""

    def pop(self) -> dict[str, LayerStatistics]:
        """Means since the last call, by layer."""
        return {layer: LayerStatistics(*means) for layer, means in self.take().items()}
