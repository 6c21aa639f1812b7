"""Inherited accuracy: what an architecture scores with the weights of a trained supernet."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim.swa_utils import update_bn

from espalier.nas.architecture import Architecture
from espalier.nas.device import autocast
from espalier.nas.elastic.layer import Elastic
from espalier.nas.gates import Gates
from espalier.nas.measurement import Estimate
from espalier.nas.region import Region
from espalier.nas.space import SearchSpace
from espalier.nas.task import Batch, Classification


class InheritedAccuracy:
    """Accuracy on held-out images of a sub-network with the supernet's weights.

    The supernet's batch-norm statistics belong to no single path, so the path has some of its own, averaged anew over
    the calibration batches before it is judged (Guo et al., SPOS, section 3.4). The supernet is not touched.

    Args:
        supernets: trained spaces on their device, each with the part of the space that it was trained for. The
            parts cover the space; an architecture is judged in the one that holds it.
        calibration: training batches of one size (each counts the same), without augmentation, the same each time.
        selection: held-out batches.
        task: judges.
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
        self._shells: dict[int, _Shell] = {}

    def __call__(self, architecture: Architecture) -> Estimate:
        """The share of the held-out images classified rightly, in [0, 1]."""
        index = self._holder(architecture)
        supernet = self._supernets[index][1]
        device = next(supernet.parameters()).device
        with torch.random.fork_rng(), autocast(device):
            torch.manual_seed(0)  # for networks with noise: the same for all
            network = self._network(index, supernet, architecture)
            accuracy = self._task.evaluate(network, self._selection)
        return Estimate(self.name, accuracy, self.unit, self.higher_is_better, provenance={"images": self._images})

    def network(self, architecture: Architecture, *, change: Callable[[nn.Module], None] | None = None) -> nn.Module:
        """The stand-alone network with the supernet's weights and statistics of its own, on the supernet's device.

        Args:
            architecture: of the space.
            change: done to the weights before the statistics are taken, such as pruning.
        """
        supernet = self._supernets[self._holder(architecture)][1]
        with torch.random.fork_rng(), autocast(next(supernet.parameters()).device):
            torch.manual_seed(0)
            network = supernet.build(architecture, weights="inherited")
            if change is not None:
                change(network)
            update_bn(self._calibration, network)
        return network.eval()

    def _holder(self, architecture: Architecture) -> int:
        """The index of the supernet whose part of the space contains the architecture."""
        return next(i for i, (region, space) in enumerate(self._supernets) if region.contains(space, architecture))

    def _network(self, index: int, supernet: SearchSpace, architecture: Architecture) -> nn.Module:
        """The sub-network with its own statistics."""
        if not _runs_as_built(supernet):
            network = supernet.build(architecture, weights="inherited")
            update_bn(self._calibration, network)
            return network
        if index not in self._shells:
            self._shells[index] = _Shell(supernet)
        shell = self._shells[index]
        shell.calibrate(supernet.gates(supernet.check(architecture)), self._calibration)
        return shell


class _Shell(nn.Module):
    """A supernet that runs one path with batch-norm statistics of its own; all other tensors are the supernet's.

    What `update_bn` does to the network that `build` cuts out, without the cutting: that takes longer than a small
    network's forward passes. Only norms that the path meets are reset, as the others are not asked.
    """

    def __init__(self, supernet: SearchSpace) -> None:
        super().__init__()
        norms = [module for module in supernet.modules() if isinstance(module, _BatchNorm)]
        own = {id(buffer) for norm in norms for buffer in norm.buffers()}
        shared = [tensor for tensor in (*supernet.parameters(), *supernet.buffers()) if id(tensor) not in own]
        self.space = copy.deepcopy(supernet, {id(tensor): tensor for tensor in shared})
        self._path: Gates = {}
        self._met: set[nn.Module] = set()
        for module in self.space.modules():
            if isinstance(module, _BatchNorm):
                module.momentum = None  # the average over batches, each counting the same
                module.register_forward_pre_hook(self._reset)

    def forward(self, x: Tensor) -> Tensor:
        return self.space(x, self._path)

    @torch.no_grad()
    def calibrate(self, path: Gates, batches: Iterable[Batch]) -> None:
        """Go over to another path, with the statistics that it has on these batches."""
        self._path = path
        self._met.clear()
        self.train()
        for x, _ in batches:
            self(x)

    def _reset(self, norm: nn.Module, _: object) -> None:
        if norm not in self._met:
            self._met.add(norm)
            norm.reset_running_stats()  # type: ignore[operator]


def _runs_as_built(supernet: SearchSpace) -> bool:
    """Whether the supernet itself computes what a built network does, in layers that keep statistics for one path."""
    elastic = any(isinstance(module, Elastic) for module in supernet.modules())
    return type(supernet).build is SearchSpace.build and not elastic
