"""Which removal hurts a supernet most, or least, by a criterion that can tell them apart."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from espalier.nas.training import Diverged
from espalier.supernets.evaluation import Evaluation
from espalier.supernets.selection.decisions import Comparison

Criterion = Literal["auto", "accuracy", "loss"]
Hurts = Literal["most", "least"]

SIGNIFICANT = 2.0
"""Standard errors beyond which a difference of accuracies counts as significant."""


def compare(without: Mapping[int, Evaluation], criterion: Criterion, *, hurts: Hurts) -> Comparison:
    """Find the candidate whose removal hurts the supernet `most` or `least`.

    Wang et al., "Rethinking Architecture Selection in Differentiable NAS", ICLR 2021, go by accuracy. Where
    the supernet is nearly perfect, a few images then decide, and equal accuracies decide for the first option,
    whatever it is. So `auto` takes the accuracy only where best and second differ significantly on the
    same images, `|b - c| > 2 sqrt(b + c)` with b and c the images that only one of the two gets right (McNemar,
    Psychometrika 12, 1947), and the loss elsewhere.

    Args:
        without: at least two candidates with the supernet's evaluation without each, all on the same images.
        criterion: what to compare.
        hurts: which candidate to find. Among equal ones the first counts as hurting most and the last as hurting
            least, so that the first is kept either way.

    Raises:
        Diverged: a loss is not finite.
        ValueError: fewer than two candidates, or different images.
    """
    if len(without) < 2 or len({evaluation.n for evaluation in without.values()}) != 1:
        raise ValueError("a comparison needs at least two candidates, judged on the same images")
    wrong = torch.stack([~evaluation.correct for evaluation in without.values()]).double()
    losses = torch.stack([evaluation.losses for evaluation in without.values()]).double()
    if not bool(losses.isfinite().all()):
        raise Diverged("the supernet's loss is not finite on the images it is judged by")
    by_accuracy, by_loss = _Lead.of(wrong, hurts), _Lead.of(losses, hurts)
    accuracy_tells = by_accuracy.margin > SIGNIFICANT * by_accuracy.standard_error
    decided_by: Literal["accuracy", "loss"] = (
        ("accuracy" if accuracy_tells else "loss") if criterion == "auto" else criterion
    )
    lead = by_accuracy if decided_by == "accuracy" else by_loss
    return Comparison(
        candidates=tuple(without),
        accuracies=tuple(evaluation.accuracy for evaluation in without.values()),
        losses=tuple(evaluation.loss for evaluation in without.values()),
        images=wrong.shape[1],
        decided=tuple(without)[lead.winner],
        decided_by=decided_by,
        margin=lead.margin,
        standard_error=lead.standard_error,
    )


@dataclass(frozen=True)
class _Lead:
    """The lead of the best row.

    Attributes:
        winner: index of the best row.
        margin: over the runner-up.
        standard_error: of the margin, if the true margin were zero.
    """

    winner: int
    margin: float
    standard_error: float

    @classmethod
    def of(cls, harm: Tensor, hurts: Hurts) -> _Lead:
        """Of harm `(candidates, images)`: the largest mean, the first of equal ones, or the smallest, the last."""
        means = harm.mean(dim=1)
        order = torch.argsort(means, descending=True, stable=True).tolist()
        winner, second = order[:2] if hurts == "most" else order[:-3:-1]
        difference = harm[winner] - harm[second]
        return cls(winner, abs(float(difference.mean())), float(difference.norm()) / harm.shape[1])
