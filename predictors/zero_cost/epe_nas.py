"""EPE-NAS: are the reactions to images of one class alike, and those to different classes not?"""

from __future__ import annotations

import itertools

from torch import Tensor

from espalier.predictors.zero_cost.batch_pass import BatchPass
from espalier.predictors.zero_cost.jacob_cov import correlations
from espalier.predictors.zero_cost.probe import Probe
from espalier.predictors.zero_cost.score import Score

K = 1e-5
FEW_CLASSES = 100


class EPENAS(Score):
    """Σ_c |s_c|, s_c = Σ_ij log(|ρ_ij| + k) over the images of class c, ρ the correlations of their Jacobians J_i.

    k = 1e-5. With more than 100 classes, s_c is divided by the class's number of images and the score is the mean over
    classes of Σ_c' |s_c - s_c'|. Lopes et al., "EPE-NAS: Efficient Performance Estimation Without Training for Neural
    Architecture Search", ICANN 2021. Only classes in the batch count; a class of one image adds next to nothing.
    """

    name = "epe_nas"
    needs = frozenset({"images", "labels"})
    batch_norm = "batch"
    reads = frozenset({"jacobian"})

    def compute(self, probe: Probe) -> float:
        return separation(probe.once(BatchPass).jacobian, probe.y)


def separation(jacobian: Tensor, y: Tensor) -> float:
    """The score of Jacobians `(n, d)` of images with labels `(n,)`."""
    classes = y.unique()
    s = []
    for c in classes:
        rho = correlations(jacobian[y == c])
        s_c = float((rho.abs() + K).log().sum())
        s.append(s_c if len(classes) <= FEW_CLASSES else s_c / len(rho))
    if len(classes) <= FEW_CLASSES:
        return sum(map(abs, s))
    return 2 * sum(abs(a - b) for a, b in itertools.combinations(s, 2)) / len(s)
