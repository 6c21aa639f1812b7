"""A search that begins with the best of many random architectures by a cheap score."""

from __future__ import annotations

from collections.abc import Sequence

from optuna.study import Study

from espalier.nas.architecture import Architecture
from espalier.nas.objective import Evaluator
from espalier.nas.progress import Track
from espalier.nas.search.parameters import to_parameters
from espalier.nas.search.scores import utilities

WARM_START = "warm_start"
"""The user attribute of a study that holds the ids of the architectures that it began with."""


def warm_start(study: Study, sample: Sequence[Architecture], evaluator: Evaluator, best: int, track: Track) -> None:
    """Put the `best` of the sample into the study's queue, best first; none that has no value. Once for each study.

    The warm-up of Abdelfattah et al., "Zero-Cost Proxies for Lightweight NAS", ICLR 2021. A study that is killed half
    way through gets each of them once all the same, if the sample is the same.
    """
    values = utilities(evaluator, sample, track, f"warm start by {evaluator.name}")
    order = sorted(range(len(sample)), key=lambda i: -values[i])
    chosen = [sample[i] for i in order[:best] if values[i] > float("-inf")]
    for architecture in chosen:
        study.enqueue_trial(to_parameters(architecture), skip_if_exists=True)
    study.set_user_attr(WARM_START, [architecture.id for architecture in chosen])
