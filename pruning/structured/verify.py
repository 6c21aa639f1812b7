"""Verify numerically, group by group, that removing channels gives the same outputs as masking them.

The probe is a copy of the network in double precision with random parameters, so that no zero (such as a norm's initial
scale) hides a mistake. Half of a group's units are removed from one copy and masked in another: both must give the same
outputs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from espalier.nas.copying import copied
from espalier.pruning.structured.groups import Removed, Units
from espalier.pruning.structured.removal import clear_caches, mask, remove
from espalier.pruning.weights import PRUNABLE

TOLERANCE = 1e-7
"""Largest difference of double-precision outputs, relative to the largest output, that rounding explains."""
TOLERANCE_SINGLE = 1e-3
"""The same for a network that runs in single precision only."""


class Probe:
    """Checks removals in a network of random parameters.

    Args:
        model: the dense network.
        example: its input `(batch, channels, height, width)`.
    """

    def __init__(self, model: nn.Module, example: Tensor) -> None:
        generator = torch.Generator().manual_seed(0)
        clear_caches(model)
        self._dense = copied(model).cpu().eval()
        randomise(self._dense, generator)
        self._example = torch.randn(example.shape, generator=generator)
        self._tolerance = TOLERANCE_SINGLE
        double = copied(self._dense).double()
        try:
            self._run(double, self._example.double())
        except RuntimeError:  # its code creates single-precision tensors
            self._expected = self._run(self._dense, self._example)
        else:
            self._dense, self._example, self._tolerance = double, self._example.double(), TOLERANCE
            self._expected = self._run(self._dense, self._example)
        self.model, self.example = self._dense, self._example

    def verified(self, groups: Sequence[Units], halves: Removed) -> list[Units]:
        """The groups; those whose removal changes the outputs are marked dense, with the reason.

        All are tried at once; if that fails, each half is tried together with those verified already.
        """
        good: list[Units] = []
        reasons: dict[str, str] = {}

        def take(some: Sequence[Units]) -> None:
            reason = self.differs([*good, *some], halves)
            if reason is None:
                good.extend(some)
            elif len(some) == 1:
                reasons[some[0].name] = reason
            else:
                take(some[: len(some) // 2])
                take(some[len(some) // 2 :])

        # failures often affect all groups of one kind: sorted by kind, they are isolated in fewer tries
        candidates = sorted((units for units in groups if units.dense_because is None), key=lambda units: units.kind)
        if candidates:
            take(candidates)
        return [units.marked_dense(reasons[units.name]) if units.name in reasons else units for units in groups]

    def differs(self, groups: Sequence[Units], removed: Removed) -> str | None:
        """How the network without these units differs from the one with them masked; None if it does not."""
        smaller, masked = copied(self._dense), copied(self._dense)
        try:
            remove(smaller, groups, removed)
            mask(masked, groups, removed)
            after, expected = self._run(smaller, self._example), self._run(masked, self._example)
        except Exception as error:  # noqa: BLE001 - this runs the user's code with other shapes; the reason is reported
            return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        if [part.shape for part in after] != [part.shape for part in self._expected]:
            return "the network's outputs have another shape"
        off = relative_difference(expected, after)
        return None if off <= self._tolerance else f"differs from the masked network by {off:.1e}"

    @staticmethod
    def _run(model: nn.Module, example: Tensor) -> list[Tensor]:
        with torch.no_grad():
            return outputs(model(example))


def difference_from_masked(
    dense: nn.Module, smaller: nn.Module, groups: Sequence[Units], removed: Removed, example: Tensor
) -> float:
    """How far the smaller network's outputs are from those of the dense one with the removed units masked.

    Returns:
        The largest difference relative to the largest output, in double precision if the network supports it.
    """
    masked, smaller = copied(dense).cpu().eval(), copied(smaller).cpu().eval()
    mask(masked.double(), groups, removed)
    with torch.no_grad():
        try:
            expected, after = (outputs(net(example.cpu().double())) for net in (masked, smaller.double()))
        except RuntimeError:  # as in Probe
            masked = copied(dense).cpu().eval()
            mask(masked, groups, removed)
            expected, after = (outputs(net(example.cpu())) for net in (masked, smaller.float()))
    if all(torch.equal(a, b) for a, b in zip(expected, after, strict=True)):
        return 0.0  # even if all outputs are 0: a last layer may be initialised to zero
    return relative_difference(expected, after)


def relative_difference(expected: Sequence[Tensor], given: Sequence[Tensor]) -> float:
    """The largest difference relative to the largest expected value; infinity if one is not finite."""
    scale = max(float(part.abs().max()) for part in expected)
    error = max(float((a - b).abs().max()) for a, b in zip(expected, given, strict=True))
    return error / scale if scale > 0 and math.isfinite(error) else math.inf


def outputs(given: object) -> list[Tensor]:
    """All tensors in what a network returns."""
    if isinstance(given, Tensor):
        return [given]
    if isinstance(given, dict):
        given = list(given.values())
    if isinstance(given, list | tuple):
        return [part for item in given for part in outputs(item)]
    return []


@torch.no_grad()
def randomise(model: nn.Module, generator: torch.Generator) -> None:
    """Set every parameter and running statistic to random values that keep signals of order 1."""

    def normal(tensor: Tensor, scale: float) -> Tensor:
        return torch.randn(tensor.shape, generator=generator) * scale

    for module in model.modules():
        for key, parameter in module.named_parameters(recurse=False):
            if isinstance(module, PRUNABLE) and key == "weight":
                fan_in = parameter[0].numel() if parameter.ndim > 1 else 1
                parameter.copy_(normal(parameter, fan_in**-0.5))
            elif key in ("weight", "gamma") and parameter.ndim == 1:
                parameter.copy_(0.5 + torch.rand(parameter.shape, generator=generator))
            else:
                parameter.copy_(normal(parameter, 0.3))
        if isinstance(module, _NormBase) and module.running_mean is not None and module.running_var is not None:
            module.running_mean.copy_(normal(module.running_mean, 0.3))
            module.running_var.copy_(0.5 + torch.rand(module.running_var.shape, generator=generator))
    clear_caches(model)
