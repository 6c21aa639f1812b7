"""What every zero-cost score is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from espalier.predictors.zero_cost.network import ScoreError
from espalier.predictors.zero_cost.probe import Probe, Reading

Need = Literal["images", "labels", "loss", "activations"]
BatchNormMode = Literal["each image", "batch", "removed", "unused"]


class Score(ABC):
    """One number for a network with its initial weights. A subclass is the formula, in `compute`.

    Calling a score leaves the network (weights, buffers, gradients, flags), the batch and the random generators of
    torch, numpy and Python exactly as they were. It runs in float32 with autocast off, whatever the caller has set. A
    result that is not finite is returned as it is. Scores of one `Probe` share their passes, and have
    the same values as alone.

    Attributes:
        name: as in recipes and reports.
        higher_is_better: the direction expected to go with accuracy.
        needs: what of the problem the value depends on: the `images` and `labels` of the batch, the cross-entropy
            `loss`, the `activations` inside the network. Without images only the shape and device of `x` are read.
        batch_norm: `each image` normalises every image by its own statistics (training mode, batches of one image),
            `batch` by those of the whole batch (training mode), `removed` not at all; `unused` runs no forward pass.
        reads: what it takes from the shared `BatchPass`.
    """

    name: ClassVar[str]
    higher_is_better: ClassVar[bool] = True
    needs: ClassVar[frozenset[Need]]
    batch_norm: ClassVar[BatchNormMode]
    reads: ClassVar[frozenset[Reading]] = frozenset()

    @abstractmethod
    def compute(self, probe: Probe) -> float:
        """The formula. What it draws at random comes from the global generators, which are seeded for it.

        Raises:
            ScoreError: the score is not defined for this network.
        """

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, *, seed: int = 0) -> float:
        """The score of a classifier.

        Args:
            model: takes images `x` and returns logits `(n, classes)`, alone or as the first of a tuple.
            x: images `(n, channels, height, width)`.
            y: their labels `(n,)`, integers.
            seed: of what the score itself draws (inputs, weights), where it does.

        Raises:
            ScoreError: the score is not defined for this network.
        """
        return self.of(Probe(model, x, y, reads=self.reads, seed=seed))

    def of(self, probe: Probe) -> float:
        """The score of the network of a probe, whose `reads` include those of this score.

        Raises:
            ScoreError: the score is not defined for this network.
        """
        with probe.seeded(self.name), torch.enable_grad(), torch.autocast(probe.device.type, enabled=False):
            try:
                return self.compute(probe)
            except ValueError as error:  # raised by torch's batch norms
                if "more than 1 value per channel" not in str(error):
                    raise
                raise ScoreError("network", f"a batch norm has no statistics ({error})") from error
