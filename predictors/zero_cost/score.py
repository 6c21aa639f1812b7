"""What every zero-cost score is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, ClassVar, Literal

from torch import Tensor, nn

from espalier.nas.errors import UserError

if TYPE_CHECKING:
    from espalier.predictors.zero_cost.probe import Probe

Need = Literal["images", "labels", "loss", "activations"]
BatchNormMode = Literal["each image", "batch", "removed", "unused"]
Reading = Literal["codes", "gradients", "maps", "curvature", "jacobian"]


class ScoreError(UserError):
    """The score is not defined for this network; the error begins with the layer's path, or the score's name."""


class Score(ABC):
    """One number for a network with its initial weights. A subclass is the formula, in `compute`.

    Calling a score leaves the network (weights, buffers, gradients, flags), the batch and the random generators of
    torch, numpy and Python exactly as they were. It runs in float32 with autocast off, whatever the caller has set. A
    result that is not finite is returned as it is. Scores asked together of one `Probe` share their passes, and have
    the values they have alone.

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
        from espalier.predictors.zero_cost.probe import Probe

        return Probe(model, x, y, reads=self.reads, seed=seed).ask(self)


def layer_weights(model: nn.Module) -> dict[str, nn.Parameter]:
    """The weights W of the formulas: those of all Conv2d and Linear layers, by name; a shared one counts once.

    Not in W: biases, normalisation, embeddings, transposed and 1-d or 3-d convolutions.

    Raises:
        ScoreError: there are none, or one is not a plain parameter (a parametrised layer).
    """
    weights: dict[str, nn.Parameter] = {}
    for path, module in model.named_modules():
        if not isinstance(module, nn.Conv2d | nn.Linear):
            continue
        weight = dict(module.named_parameters(recurse=False)).get("weight")
        if weight is None:
            raise ScoreError(path or "network", "its weight is computed from other parameters, so has no score")
        if all(weight is not known for known in weights.values()):
            weights[f"{path}.weight" if path else "weight"] = weight
    if not weights:
        raise ScoreError("network", "it has no Conv2d or Linear layer")
    return weights
