"""What every score needs of a network: its weights, its logits, and the error where it lacks something."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from espalier.nas.errors import Code, UserError


class ScoreError(UserError):
    """The score is not defined for this network.

    Args:
        where: the path of the layer, or `network`.
        problem: what the score needs and the network does not have.
        code: as in `UserError`.
    """

    def __init__(self, where: str, problem: str, *, code: Code = "unsupported") -> None:
        super().__init__(where, problem, code=code)


def layer_weights(model: nn.Module) -> dict[str, nn.Parameter]:
    """The weights W of the formulas: those of all Conv2d and Linear layers, by name; a shared weight counts once.

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
            raise ScoreError(path or "network", "its weight is computed from other parameters, which has no score")
        if all(weight is not known for known in weights.values()):
            weights[f"{path}.weight" if path else "weight"] = weight
    if not weights:
        raise ScoreError("network", "it has no Conv2d or Linear layer")
    return weights


def logits(output: Any, images: int) -> Tensor:
    """The logits `(images, classes)` that a network returned, alone or as the first of a tuple.

    Raises:
        ScoreError: it returned something else.
    """
    first = output[0] if isinstance(output, tuple | list) and output else output
    if not isinstance(first, Tensor) or first.ndim != 2 or len(first) != images:
        what = f"a tensor of {tuple(first.shape)}" if isinstance(first, Tensor) else f"a {type(first).__name__}"
        raise ScoreError("network", f"it returns {what} for {images} images; logits (images, classes) are needed")
    return first
