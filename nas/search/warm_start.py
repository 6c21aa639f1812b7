"""Warm start: a search starts with the best of many random architectures, by a cheap score."""

from __future__ import annotations

from collections.abc import Sequence

from optuna.study import Study

from espalier.nas.architecture import Architecture
from espalier.nas.objective import Evaluator
from espalier.nas.progress import Track
from espalier.nas.search.parameters import to_parameters
from espalier.nas.search.scores import utilities

WARM_START = "warm_start"
"""The user attribute of a study with the ids of its first architectures."""


def warm_start(study: Study, sample: Sequence[Architecture], evaluator: Evaluator, best: int, track: Track) -> None:
    """Enqueue the best architectures of a sample, best first. Call it once for each study.

    The warm-up of Abdelfattah et al., "Zero-Cost Proxies for Lightweight NAS", ICLR 2021. If the process is killed in
    between, calling it again with the same sample enqueues no architecture twice.

    Args:
        study: the study.
        sample: random architectures; those without a finite score are left out.
        evaluator: the score.
        best: how many to enqueue.
        track: shows progress.
    """
    values = utilities(evaluator, sample, track, f"warm start by {evaluator.name}")
    order = sorted(range(len(sample)), key=lambda i: -values[i])
    chosen = [sample[i] for i in order[:best] if values[i] > float("-inf")]
    for architecture in chosen:
        study.enqueue_trial(to_parameters(architecture), skip_if_exists=True)
    study.set_user_attr(WARM_START, [architecture.id for architecture in chosen])
