"""Inherited accuracy: what an architecture scores with the weights of a trained supernet."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch.optim.swa_utils import update_bn

from nas.architecture import Architecture
from nas.device import autocast
from nas.measurement import Estimate
from nas.region import Region
from nas.space import SearchSpace
from nas.task import Batch, Classification


class InheritedAccuracy:
    """Accuracy on held-out images of the sub-network cut out of the supernet.

    The supernet's batch-norm statistics belong to no single path, so those of the copy are reset and averaged anew
    over the calibration batches before it is judged (Guo et al., SPOS, section 3.4). The supernet is not touched.

    Args:
        supernets: trained spaces on their device, each with the part of the space that it was trained for. The
            parts cover the space; an architecture is judged in the one that holds it.
        calibration: training batches of one size (each counts the same), without augmentation, the same each time.
        selection: held-out batches. task: judges.
        images: number of held-out images, recorded with each estimate.
    """

    name = "inherited"
    unit = "accuracy"
    higher_is_better = True

    def __init__(
        self,
        supernets: Sequence[tuple[Region, SearchSpace]],
        *,
        calibration: Iterable[Batch],
        selection: Iterable[Batch],
        task: Classification,
        images: int,
    ) -> None:
        self._supernets = tuple(supernets)
        self._calibration = calibration
        self._selection = selection
        self._task = task
        self._images = images

    def __call__(self, architecture: Architecture) -> Estimate:
        """The share of the held-out images classified rightly, in [0, 1]."""
        supernet = next(space for region, space in self._supernets if region.holds(space, architecture))
        network = supernet.build(architecture, weights="inherited")
        device = next(network.parameters()).device
        with torch.random.fork_rng(), autocast(device):
            torch.manual_seed(0)  # of networks with noise in them, the same for all
            update_bn(self._calibration, network)
            accuracy = self._task.evaluate(network, self._selection)
        return Estimate(self.name, accuracy, self.unit, self.higher_is_better, provenance={"images": self._images})
