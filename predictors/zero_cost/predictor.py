"""Zero-cost scores as predictors of the architectures of a space."""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor

from espalier.nas.architecture import Architecture
from espalier.nas.errors import UserError
from espalier.nas.measurement import Estimate
from espalier.nas.space import SearchSpace
from espalier.predictors.zero_cost.probe import Probe
from espalier.predictors.zero_cost.score import Score
from espalier.predictors.zero_cost.score_evaluator import ScoreEvaluator


class ZeroCostPredictor:
    """A score of each architecture's stand-alone network with fresh weights; made by `zero_cost_predictors`."""

    unit = ""

    def __init__(self, score: Score, networks: _Networks) -> None:
        self.name = score.name
        self.higher_is_better = score.higher_is_better
        self._networks = networks

    def __call__(self, architecture: Architecture) -> Estimate:
        """The score, averaged over the repeats; see `ScoreEvaluator.estimate`.

        Raises:
            UserError: not an architecture of the space.
        """
        return self._networks.evaluator.estimate(self.name, self._networks.probes(architecture))


def zero_cost_predictors(
    scores: Iterable[Score],
    space: SearchSpace,
    x: Tensor,
    y: Tensor,
    *,
    seed: int,
    repeats: int = 1,
    limit_s: float | None = None,
) -> dict[str, ZeroCostPredictor]:
    """A predictor for each score, by name, which share their passes.

    The weights are drawn from a generator seeded with `(seed, repeat)`, the same for all architectures. So an estimate
    does not depend on earlier calls, on the state of the global generators (which it leaves as they were), or on the
    other scores. The networks of the last architecture are cached: ask all predictors about one architecture, then
    about the next.

    Args:
        scores: by which to predict.
        space: where the architectures are from.
        x: images `(n, *space.input_shape)`, on the device to compute on.
        y: labels `(n,)`.
        seed: see `ScoreEvaluator`.
        repeats: see `ScoreEvaluator`.
        limit_s: see `ScoreEvaluator`.

    Raises:
        UserError: the batch does not fit the space, or a number is out of range.
    """
    evaluator = ScoreEvaluator(scores, x, y, seed=seed, repeats=repeats, limit_s=limit_s)
    if tuple(x.shape[1:]) != tuple(space.input_shape):
        raise UserError("images", f"the space takes (n, *{space.input_shape}), not {tuple(x.shape)}", code="mismatch")
    if int(y.min()) < 0 or int(y.max()) >= space.num_classes:
        problem = f"range from {int(y.min())} to {int(y.max())}, but the classes from 0 to {space.num_classes - 1}"
        raise UserError("labels", problem, code="mismatch")
    networks = _Networks(evaluator, space)
    return {name: ZeroCostPredictor(score, networks) for name, score in evaluator.scores.items()}


class _Networks:
    """Caches the probes of the last architecture."""

    def __init__(self, evaluator: ScoreEvaluator, space: SearchSpace) -> None:
        self.evaluator = evaluator
        self._space = space
        self._last: tuple[Architecture, list[Probe]] | None = None

    def probes(self, architecture: Architecture) -> list[Probe]:
        if self._last is None or self._last[0] != architecture:
            self._last = None  # free the old ones before making new ones
            self._last = architecture, self.evaluator.probes(lambda: self._space.build(architecture))
        return self._last[1]
