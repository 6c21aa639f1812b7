"""Evaluators as scores, for comparing many architectures before the search evaluates one."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch

from espalier.nas.architecture import Architecture
from espalier.nas.errors import UserError
from espalier.nas.measurement import Measurement
from espalier.nas.objective import Evaluator
from espalier.nas.progress import Track
from espalier.nas.space import SearchSpace

Allowed = Callable[[Architecture], bool]
"""Whether an architecture satisfies the limits that cost nothing to check."""
DRAWS_EACH = 100
"""Draws for each wanted architecture before the search for more ends."""


def utility(evaluator: Evaluator, architecture: Architecture) -> float:
    """The evaluator's number, negated if lower is expected to be better; -inf if it is not finite."""
    result = evaluator.evaluate(architecture)
    if isinstance(result, Measurement):
        return -result.latency_ms
    upwards = result.value if result.higher_is_better else -result.value
    return upwards if math.isfinite(upwards) else -math.inf


def utilities(evaluator: Evaluator, sample: Sequence[Architecture], track: Track, purpose: str) -> list[float]:
    """The utility of each architecture of a sample.

    Args:
        evaluator: the score.
        sample: the architectures.
        track: shows progress.
        purpose: the label of the progress.
    """
    return [utility(evaluator, architecture) for architecture in track(sample, purpose, len(sample))]


def draw(space: SearchSpace, count: int, allowed: Allowed, *, seed: int) -> list[Architecture]:
    """Up to `count` different allowed architectures, drawn uniformly; fewer if no more are found.

    With the same seed, a shorter list is the beginning of a longer one.

    Args:
        space: where they are drawn from.
        count: how many.
        allowed: the limits that they must satisfy.
        seed: of the draws.

    Raises:
        UserError: none is allowed.
    """
    generator = torch.Generator().manual_seed(seed)
    drawn: dict[str, Architecture] = {}
    for _ in range(DRAWS_EACH * count):
        if len(drawn) == min(count, space.size):
            break
        architecture = space.sample(generator)
        if architecture.id not in drawn and allowed(architecture):
            drawn[architecture.id] = architecture
    if not drawn:
        raise UserError(
            "search.constraints", f"none of {DRAWS_EACH * count} random architectures satisfies them", code="infeasible"
        )
    return list(drawn.values())
