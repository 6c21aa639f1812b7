"""Fisher: how much information do the channels' activations carry about the loss?"""

from __future__ import annotations

from collections.abc import Iterable

from espalier.predictors.zero_cost.batch_pass import BatchPass, Map
from espalier.predictors.zero_cost.probe import Probe
from espalier.predictors.zero_cost.score import Score


class Fisher(Score):
    """Σ_c F_c K_c over the output channels c of all Conv2d and Linear layers, F_c = ½ mean_n (Σ_hw a ⊙ δ)².

    a is the channel's map, δ the gradient of the batch's mean loss by it, and K_c the channel's number of weights: the
    channel's information counts once for each of them. Theis et al., "Faster gaze prediction with dense networks and
    Fisher pruning", 2018; Turner et al., "BlockSwap", ICLR 2020; as a score by Abdelfattah et al., ICLR 2021.
    """

    name = "fisher"
    needs = frozenset({"images", "labels", "loss", "activations"})
    batch_norm = "batch"
    reads = frozenset({"gradients", "maps"})

    def compute(self, probe: Probe) -> float:
        return information(probe.once(BatchPass).maps)


def information(maps: Iterable[Map]) -> float:
    """Σ_c F_c K_c."""
    return sum(float((m.output * m.gradient).sum(1).square().mean(0).sum()) / 2 * m.fan_in for m in maps)
