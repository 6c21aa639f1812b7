"""The search: an Optuna study over the architectures of a space."""

from __future__ import annotations

import functools
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from espalier.nas.architecture import Architecture
from espalier.nas.errors import UserError
from espalier.nas.objective import Constraint, Evaluator, find_evaluator
from espalier.nas.pareto import non_dominated
from espalier.nas.progress import Track, silent
from espalier.nas.search.candidate import Candidate, evaluate_candidate, nearest_miss
from espalier.nas.search.latency_cascade import LatencyCascade
from espalier.nas.search.scores import Allowed, draw
from espalier.nas.search.settings import SearchSettings
from espalier.nas.search.stored import stored_candidate
from espalier.nas.space import SearchSpace

if TYPE_CHECKING:
    from optuna import Study
    from optuna.trial import FrozenTrial, Trial

    from espalier.nas.search.surrogate import Surrogate

_log = logging.getLogger(__name__)

RECORD = "record"
"""The user attribute of a trial with the record of its candidate."""
MAX_UNPRODUCTIVE = 5
"""Known architectures proposed in a row before an unseen one is drawn uniformly instead."""
MAX_REJECTED = 500
"""Architectures in a row that break a constraint before the search stops."""
MAX_FAILED = 10
"""Failures in a row without any success before the search stops: something more general is wrong."""
RECHECKED_ESTIMATES = 3
"""If estimates rule out everything, how many of the lowest ones are measured before the search stops."""


class Search:
    """A study in progress. Its finished trials are stored, so that a killed search can be resumed.

    Args:
        space: the space to search.
        evaluators: objectives, constraints and scores by name; evaluated in this order, so put cheap ones first.
        settings: see `SearchSettings`.
        path: the file of the study, if the settings name no other storage.
        name: the study's name in the storage.
        seed: of all proposals.
        surrogate: a predictor to fit to the search, if the settings need one.
        allowed: whether an architecture satisfies the limits that cost nothing to check. Others are proposed only if
            nothing else is.
        cascade: limits the latency. Then all candidates on the front have measured latencies.
        clock: returns the time in seconds, for the durations of evaluations.

    Attributes:
        stopped: why the search ended before all its trials; else empty.

    Raises:
        UserError: a name has no evaluator, a surrogate is missing, or the storage cannot be used.
    """

    def __init__(
        self,
        space: SearchSpace,
        evaluators: Mapping[str, Evaluator],
        settings: SearchSettings,
        *,
        path: Path,
        name: str,
        seed: int,
        surrogate: Surrogate | None = None,
        allowed: Allowed = lambda architecture: True,
        cascade: LatencyCascade | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        import optuna

        from espalier.nas.search.parameters import distributions
        from espalier.nas.search.samplers import sampler
        from espalier.nas.search.storage import open_storage

        self.space = space
        self.settings = settings
        self._stored = str(path) if settings.storage is None else "search.storage"
        self.objectives = [find_evaluator(evaluators, o, where="search.objectives") for o in settings.objectives]
        self.constraints = [Constraint.parse(c, where="search.constraints") for c in settings.constraints]
        for constraint in self.constraints:
            find_evaluator(evaluators, constraint.name, where="search.constraints")
        self.evaluators = _cached(evaluators, settings.scores)
        self.allowed, self.cascade, self.clock, self.seed = allowed, cascade, clock, seed
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.study: Study = optuna.create_study(
            study_name=name,
            storage=open_storage(settings.storage, path),
            directions=[o.direction for o in self.objectives],
            load_if_exists=True,
        )
        started = len(self.study.get_trials(deepcopy=False))
        # A resumed search must not repeat the draws of its first part, so its samplers get another seed.
        self._distributions = distributions(space)
        self.study.sampler = sampler(
            settings, self.evaluators, surrogate, self._distributions, allowed=allowed, seed=seed + started
        )
        self.generator = torch.Generator().manual_seed(seed + started)
        self._limits = self.constraints
        self.stopped = ""
        self._known = {candidate.architecture.id: candidate for candidate in self.candidates()}

    def candidates(self) -> list[Candidate]:
        """All evaluated architectures in the order of their trials; if one was evaluated again, the last result."""
        trials = [trial for trial in self.study.get_trials(deepcopy=False) if "architecture" in _record(trial)]
        found = [stored_candidate(trial.number, _record(trial), trial.values, self._stored) for trial in trials]
        last = {candidate.architecture.id: candidate for candidate in found}
        return sorted(last.values(), key=lambda candidate: candidate.trial)

    @property
    def duplicates(self) -> int:
        """The number of proposals that had been evaluated before."""
        return sum("duplicate_of" in _record(trial) for trial in self.study.get_trials(deepcopy=False))

    def front(self) -> list[Candidate]:
        """The Pareto front: complete candidates that no other one dominates, the best by the first objective first.

        With a latency cascade, all of them are measured: what was not measured is dominated by something that was.
        """
        complete = [c for c in self.candidates() if c.status == "complete" and self._is_measured(c)]
        values = [[c.values[o.name] for o in self.objectives] for c in complete]
        mask = non_dominated(values, [o.direction for o in self.objectives])
        front = [c for c, on_front in zip(complete, mask, strict=True) if on_front]
        first = self.objectives[0]
        return sorted(front, key=lambda c: c.values[first.name], reverse=first.direction == "maximize")

    def run(self, *, track: Track = silent) -> None:
        """Evaluate architectures until `settings.trials` are complete or failed, or there are no more.

        If it ends earlier, `stopped` says why.

        Args:
            track: shows progress.

        Raises:
            UserError: no architecture satisfies the constraints (the message has the nearest miss), every evaluation
                fails, or another process continues the same study.
        """
        from optuna.exceptions import UpdateFinishedTrialError

        try:
            self._run(track)
        except UpdateFinishedTrialError as error:  # on another machine; on this one, its owner holds a lock
            problem = "another process has finished a trial of this study meanwhile"
            raise UserError("search.storage", problem, code="busy") from error

    def _run(self, track: Track) -> None:
        self._resume_interrupted()
        done = sum(c.status != "infeasible" for c in self._known.values())
        if done < self.settings.trials:
            self._prepare(track)
        for _ in track(self._steps(self.settings.trials - done), "search", self.settings.trials, done=done):
            pass

    def _prepare(self, track: Track) -> None:
        """Find the limits of the filters, and enqueue the warm start."""
        from espalier.nas.search.filters import best_share
        from espalier.nas.search.warm_start import WARM_START, warm_start

        self._limits = [
            *self.constraints,
            *(best_share(self.evaluators[f.by], self._sample(f.among), f.keep, track) for f in self.settings.filters),
        ]
        start = self.settings.warm_start
        if start is not None and WARM_START not in self.study.user_attrs:
            warm_start(self.study, self._sample(start.candidates), self.evaluators[start.by], start.best, track)

    def _sample(self, count: int) -> list[Architecture]:
        """Random architectures, the same ones in every process that continues this study."""
        return draw(self.space, count, self.allowed, seed=self.seed)

    def _steps(self, trials: int) -> Iterator[Candidate]:
        """Yields each newly evaluated candidate, whether complete or failed."""
        unproductive = rejected = failed = 0
        while trials > 0 and len(self._known) < self.space.size:
            candidate = self._next(unseen=unproductive >= MAX_UNPRODUCTIVE)
            unproductive = unproductive + 1 if candidate is None else 0
            if candidate is None:
                continue
            rejected = rejected + 1 if candidate.status == "infeasible" else 0
            if candidate.status == "infeasible":
                if rejected < MAX_REJECTED:
                    continue
                self.stopped = f"{MAX_REJECTED} proposals in a row broke a constraint"
                break
            failed = failed + 1 if candidate.status == "failed" else 0
            if failed >= MAX_FAILED and not self._any_complete():
                raise UserError(
                    "search", f"the first {failed} architectures all failed: {candidate.reason}", code="failed"
                )
            trials -= 1
            yield candidate
        if not self._any_complete():
            yield from self._recheck_estimates()
        if not self._any_complete():
            where = "search.constraints" if self.cascade is None else "budget"
            raise UserError(where, nearest_miss(self._known.values(), self._limits, self.cascade), code="infeasible")
        if trials > 0 and not self.stopped:
            self.stopped = f"the space has only {self.space.size} architectures"

    def _recheck_estimates(self) -> Iterator[Candidate]:
        """Measure the lowest estimates, if estimates have ruled out everything: they may be wrong."""
        from espalier.nas.search.parameters import to_parameters

        cascade = self.cascade
        if cascade is None:
            return
        estimated = [c for c in self._known.values() if c.latency and c.latency.fidelity == "estimate"]
        _log.info(
            "search: no estimate fits; measuring up to %d architectures with the lowest ones", RECHECKED_ESTIMATES
        )
        for past in sorted(estimated, key=lambda c: c.values[cascade.name])[:RECHECKED_ESTIMATES]:
            cascade.measure(past.architecture)  # from now on the measurement is known
            del self._known[past.architecture.id]
            self.study.enqueue_trial(to_parameters(past.architecture))
            candidate = self._next(unseen=False)
            if candidate is not None and candidate.status == "complete":
                yield candidate

    def _is_measured(self, candidate: Candidate) -> bool:
        return self.cascade is None or (candidate.latency is not None and candidate.latency.fidelity == "measurement")

    def _would_enter_front(self, values: Mapping[str, float]) -> bool:
        """Whether no complete, measured candidate dominates these values."""
        certain = [c.values for c in self._known.values() if c.status == "complete" and self._is_measured(c)]
        points = [[row[o.name] for o in self.objectives] for row in (values, *certain)]
        return bool(non_dominated(points, [o.direction for o in self.objectives])[0])

    def _any_complete(self) -> bool:
        return any(candidate.status == "complete" for candidate in self._known.values())

    def _next(self, *, unseen: bool) -> Candidate | None:
        """Ask the study for an architecture, evaluate it and tell the result; `None` if it was known."""
        from espalier.nas.search.parameters import to_architecture, to_parameters

        if unseen:
            architecture = self._draw_unseen()
            self.study.enqueue_trial(to_parameters(architecture))
        trial = self.study.ask(self._distributions)
        architecture = to_architecture(trial.params)
        known = self._known.get(architecture.id)
        if known is not None:
            trial.set_user_attr(RECORD, {"duplicate_of": known.trial})
            # In a population a duplicate would only displace others, and fill the study with trials to go through.
            # TPE has to see it, or it would propose it again and again.
            self._tell(trial, known if self.settings.sampler == "tpe" else None)
            return None
        candidate = self._evaluate(trial.number, architecture)
        if candidate.status == "failed":
            _log.warning("architecture %s failed: %s", architecture.id, candidate.reason)
        trial.set_user_attr(RECORD, candidate.to_record())
        self._tell(trial, candidate)
        self._known[architecture.id] = candidate
        return candidate

    def _evaluate(self, trial: int, architecture: Architecture) -> Candidate:
        if not self.space.contains(architecture):
            return Candidate(trial, architecture, "infeasible", {}, {}, "the constraints of the space rule it out", 0.0)
        return evaluate_candidate(
            trial,
            architecture,
            self.evaluators,
            objectives=[objective.name for objective in self.objectives],
            constraints=self._limits,
            cascade=self.cascade,
            would_enter_front=self._would_enter_front,
            clock=self.clock,
        )

    def _tell(self, trial: Trial, candidate: Candidate | None) -> None:
        """Finish the trial with the candidate's values, or as failed if it has none."""
        from optuna.trial import TrialState

        if candidate is not None and candidate.status == "complete":
            self.study.tell(trial, [candidate.values[o.name] for o in self.objectives])
        else:
            self.study.tell(trial, state=TrialState.FAIL)

    def _resume_interrupted(self) -> None:
        """Close the trials that a killed process left open, and enqueue their architectures."""
        from optuna.trial import TrialState

        for trial in self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            record = _record(trial)
            if record.get("status") == "complete":  # killed between writing the record and finishing the trial
                values = [record["values"][o.name] for o in self.objectives]
                self.study.tell(trial.number, values)
                continue
            self.study.tell(trial.number, state=TrialState.FAIL)
            if not record and trial.params.keys() == self._distributions.keys():
                _log.info("search: the architecture of the interrupted trial %d is evaluated again", trial.number)
                self.study.enqueue_trial(trial.params)

    def _draw_unseen(self) -> Architecture:
        while True:
            architecture = self.space.sample(self.generator)
            if architecture.id not in self._known:
                return architecture


def _record(trial: FrozenTrial) -> dict[str, Any]:
    """The record of a trial's candidate; empty while it runs."""
    return trial.user_attrs.get(RECORD, {})


def _cached(evaluators: Mapping[str, Evaluator], names: Sequence[str]) -> dict[str, Evaluator]:
    """The evaluators; those with these names evaluate each architecture only once."""
    for name in names:
        find_evaluator(evaluators, name, where="search")
    return {
        name: replace(e, evaluate=functools.cache(e.evaluate)) if name in names else e for name, e in evaluators.items()
    }
