"""Evaluates scores of networks on one fixed batch: seeds, repeats, time limits, and how each evaluation ended."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from espalier.nas.errors import UserError
from espalier.nas.measurement import Estimate, Status
from espalier.predictors.zero_cost.deadline import Deadline, TimedOut
from espalier.predictors.zero_cost.network import ScoreError
from espalier.predictors.zero_cost.probe import Probe, Reading, seeded_generators
from espalier.predictors.zero_cost.score import Score


class ScoreEvaluator:
    """A fixed batch, and the scores to evaluate on it.

    Args:
        scores: all that will be evaluated, so that they share their passes.
        x: images `(n, channels, height, width)`, on the device to compute on.
        y: labels `(n,)`, integers.
        seed: of the weights and of what scores draw, at least 0.
        repeats: initialisations to average over.
        limit_s: seconds that one score of one network may take; None for any.

    Raises:
        UserError: images or labels of the wrong shape, or a number out of range.
    """

    def __init__(
        self,
        scores: Iterable[Score],
        x: Tensor,
        y: Tensor,
        *,
        seed: int,
        repeats: int = 1,
        limit_s: float | None = None,
    ) -> None:
        if x.ndim != 4 or len(x) == 0:
            raise UserError("images", f"must be (n, channels, height, width), not {tuple(x.shape)}")
        if y.shape != x.shape[:1] or y.is_floating_point():
            problem = f"must be one integer for each of {len(x)} images, not {y.dtype} {tuple(y.shape)}"
            raise UserError("labels", problem)
        if repeats < 1:
            raise UserError("repeats", f"must be at least 1, not {repeats}", code="out_of_range")
        if seed < 0:
            raise UserError("seed", f"must be at least 0, not {seed}", code="out_of_range")
        if limit_s is not None and not limit_s > 0:
            raise UserError("limit_s", f"must be above 0 seconds, not {limit_s}", code="out_of_range")
        self.scores = {score.name: score for score in scores}
        self._reads: frozenset[Reading] = frozenset().union(*(score.reads for score in self.scores.values()))
        self._x, self._y = x.detach().clone(), y.detach().clone()
        self._seed, self._repeats, self._limit_s = seed, repeats, limit_s
        self._batch_hash = batch_hash(x, y)

    def probes(self, make: Callable[[], nn.Module]) -> list[Probe]:
        """Probes of the network that `make` returns, one for each repeat.

        Args:
            make: returns the network with fresh weights drawn from the global generators. These are seeded before, the
                same for all networks, and restored afterwards.
        """
        probes = []
        for repeat in range(self._repeats):
            seed = int(np.random.SeedSequence((self._seed, repeat)).generate_state(1)[0])
            with seeded_generators(seed, self._x.device):
                network = make().to(self._x.device)
            probes.append(Probe(network, self._x, self._y, reads=self._reads, seed=seed, own=True))
        return probes

    def estimate(self, name: str, probes: Sequence[Probe]) -> Estimate:
        """The score of that name, averaged over the probes.

        The provenance holds `seed`, `repeats`, `images` (their number), `batch_hash` and, with more than one repeat,
        `std`, the sample standard deviation over the repeats (absent where a value is not finite). A score that is
        not defined for the network, fails in it, does not fit into memory or takes too long has a status and a
        reason, no value.
        """
        score = self.scores[name]
        provenance: dict[str, str | int | float] = {
            "seed": self._seed,
            "repeats": self._repeats,
            "images": len(self._x),
            "batch_hash": self._batch_hash,
        }
        about: dict[str, Any] = {"unit": "", "higher_is_better": score.higher_is_better, "provenance": provenance}
        try:
            values = np.array([self._ask(score, probe) for probe in probes])
        except Exception as error:  # noqa: BLE001 - the network may raise anything, and must not stop other scores
            reason = next(iter(str(error).splitlines()), "")
            if not isinstance(error, ScoreError | TimedOut | MemoryError):
                reason = f"{type(error).__name__}: {reason}"
            return Estimate(name, math.nan, status=_status(error), reason=reason, **about)
        if len(values) > 1 and np.isfinite(values).all():
            provenance["std"] = float(values.std(ddof=1))
        with np.errstate(invalid="ignore"):  # infinities of both signs average to nan, which is right
            return Estimate(name, float(values.mean()), **about)

    def _ask(self, score: Score, probe: Probe) -> float:
        with Deadline(self._limit_s) if self._limit_s is not None else nullcontext():
            return score.of(probe)


def batch_hash(x: Tensor, y: Tensor) -> str:
    """The first 12 hexadecimal digits of the SHA-256 of both tensors: types, shapes and numbers."""
    digest = hashlib.sha256()
    for tensor in (x.detach().cpu().contiguous(), y.detach().cpu().contiguous()):
        digest.update(f"{tensor.dtype}{tuple(tensor.shape)}".encode())
        digest.update(tensor.flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:12]


def _status(error: Exception) -> Status:
    """How a score ended that raised this."""
    if isinstance(error, TimedOut):
        return "timed out"
    if isinstance(error, MemoryError | torch.OutOfMemoryError) or "can't allocate memory" in str(error):
        return "out of memory"
    return "failed"
