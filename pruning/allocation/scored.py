"""Allocations by a global threshold on a score of each weight: magnitude, LAMP, saliency."""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from espalier.nas.arguments import checked_arguments
from espalier.nas.errors import UserError
from espalier.pruning.allocation.rounding import keeps_at
from espalier.pruning.masks import flatten, unflatten
from espalier.pruning.patterns import Globally, Scores
from espalier.pruning.weights import Weights

Density = Annotated[float, Field(ge=0, le=1)]


@checked_arguments
def global_magnitude(
    weights: Weights, sparsity: float, *, least_density: Density = 0.0, normalise: bool = False
) -> dict[str, int]:
    """Zeros by a global threshold on |w|: each layer has as many as it has of the smallest weights.

    Args:
        weights: by name; left as they are.
        sparsity: S, at least 0 and below 1.
        least_density: the share that each layer always keeps, so that no layer collapses.
        normalise: divide by the layer's standard deviation first; where batch norms follow, the scale of a layer's
            weights has no meaning.

    Raises:
        UserError: an option is out of range, or the sparsity cannot be reached.
    """
    scores = {name: weight.detach().abs() for name, weight in weights.items()}
    if normalise:  # the deviation of a single weight or of equal weights is 0: they are not scaled
        scales = {name: weight.detach().float().std(correction=0) for name, weight in weights.items()}
        scores = {name: score / torch.where(scales[name] > 0, scales[name], 1) for name, score in scores.items()}
    return from_scores(weights, sparsity, scores, least_density)


@checked_arguments
def lamp(weights: Weights, sparsity: float, *, least_density: Density = 0.0) -> dict[str, int]:
    """LAMP: Lee et al., "Layer-adaptive Sparsity for the Magnitude-based Pruning", ICLR 2021.

    Args:
        weights: by name; left as they are.
        sparsity: S, at least 0 and below 1.
        least_density: see `global_magnitude`.

    Raises:
        UserError: an option is out of range, or the sparsity cannot be reached.
    """
    scores = {name: lamp_scores(weight.detach()) for name, weight in weights.items()}
    return from_scores(weights, sparsity, scores, least_density)


@checked_arguments
def saliency(weights: Weights, sparsity: float, saliencies: Scores, *, least_density: Density = 0.0) -> dict[str, int]:
    """Zeros by a global threshold on given saliencies, such as w² / (2 [F⁻¹]_kk) of OBS.

    Args:
        weights: by name; left as they are.
        sparsity: S, at least 0 and below 1.
        saliencies: of each weight, by its name and in its shape.
        least_density: see `global_magnitude`.

    Raises:
        UserError: a saliency is missing, an option is out of range, or the sparsity cannot be reached.
    """
    return from_scores(weights, sparsity, matching_scores(weights, saliencies, where="saliencies"), least_density)


def lamp_scores(weight: Tensor) -> Tensor:
    """w_u² / Σ_{v ≥ u} w_v² with the weights in ascending order of |w|, float64 and of the weight's shape.

    The largest weight has score 1, so that every layer keeps at least that one. In a layer of zeros all scores are 0.
    """
    squares = flatten(weight).double() ** 2
    ascending, order = squares.sort(stable=True)
    tails = ascending.flip(0).cumsum(0).flip(0)
    scores = torch.empty_like(squares)
    scores[order] = torch.where(tails > 0, ascending / tails, 0.0)
    return unflatten(scores, weight)


def from_scores(weights: Weights, sparsity: float, scores: Scores, least_density: float = 0.0) -> dict[str, int]:
    """Zeros by name where the lowest scores over all layers are pruned."""
    zeros = sum(weight.numel() for weight in weights.values()) - keeps_at(weights, sparsity)
    masks = Globally(zeros, least_density=least_density).select(scores)
    counts = torch.stack([(~kept).sum().cpu() for kept in masks.values()]).tolist()
    return dict(zip(masks, counts, strict=True))


def matching_scores(weights: Weights, scores: Scores, *, where: str) -> dict[str, Tensor]:
    """The scores of `weights`, in the order of the weights.

    Raises:
        UserError: a score is missing, has another shape, or contains NaN.
    """
    for name, weight in weights.items():
        shape = tuple(weight.shape)
        if name not in scores:
            raise UserError(f"{where}.{name}", f"is missing; a tensor of shape {shape} is needed", code="missing")
        if scores[name].shape != weight.shape:
            problem = f"has shape {tuple(scores[name].shape)}, its weight has {shape}"
            raise UserError(f"{where}.{name}", problem, code="mismatch")
        if bool(scores[name].isnan().any()):
            raise UserError(f"{where}.{name}", "contains NaN")
    return {name: scores[name] for name in weights}
