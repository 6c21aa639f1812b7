"""The search: an Optuna study over the architectures of a space."""

from __future__ import annotations

import functools
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
from espalier.nas.space import SearchSpace

if TYPE_CHECKING:
    from optuna import Study
    from optuna.trial import FrozenTrial, Trial

    from espalier.nas.search.surrogate import Surrogate

RECORD = "record"
"""The user attribute of a trial that holds what was found out."""
MAX_UNPRODUCTIVE = 5
"""Proposals in a row that bring nothing new before an unseen architecture is drawn uniformly instead."""
MAX_REJECTED = 500
"""Architectures in a row that break a constraint before the search gives up."""
MAX_FAILED = 10
"""Failures in a row, without one success, before the search gives up: something general is wrong."""
RECHECKED_ESTIMATES = 3
"""Where nothing fits, the architectures of the lowest estimates that are measured before the search gives up."""


class Search:
    """A study in progress, whose finished trials outlive the process.

    Args:
        space: where architectures come from.
        evaluators: what can be asked for by name, objectives, constraints and scores; asked in the order of the
            mapping, so put cheap ones first.
        settings: see `SearchSettings`.
        path: the file of the embedded storage.
        name: the study's name in the storage.
        seed: of all proposals.
        surrogate: learns from the search where the settings ask for it.
        allowed: whether an architecture keeps the limits that are known without effort. Others are not proposed where
            there is a choice.
        cascade: finds the latency and limits it; then no candidate is on the front whose latency was not measured.
        clock: tells the time that evaluations take, in seconds.

    Attributes:
        stopped: why the search ended before all its trials, if it did.

    Raises:
        UserError: something named has no evaluator, a surrogate is needed and missing, or the storage cannot be used.
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
        # A resumed search must not repeat the draws of its first part, so its samplers start elsewhere.
        self._distributions = distributions(space)
        self.study.sampler = sampler(
            settings, self.evaluators, surrogate, self._distributions, allowed=allowed, seed=seed + started
        )
        self.generator = torch.Generator().manual_seed(seed + started)
        self._limits = self.constraints
        self.stopped = ""
        self._known = {candidate.architecture.id: candidate for candidate in self.candidates()}

    def candidates(self) -> list[Candidate]:
        """All finished architectures, each once, in the order of their trials; of a second look, the last."""
        records = ((trial.number, _record(trial)) for trial in self.study.get_trials(deepcopy=False))
        found = [Candidate.from_record(number, record) for number, record in records if "architecture" in record]
        last = {candidate.architecture.id: candidate for candidate in found}
        return sorted(last.values(), key=lambda candidate: candidate.trial)

    @property
    def duplicates(self) -> int:
        """Proposals that had been evaluated before."""
        return sum("duplicate_of" in _record(trial) for trial in self.study.get_trials(deepcopy=False))

    def front(self) -> list[Candidate]:
        """The complete candidates that no other dominates, best first by the first objective.

        Under a cascade they are all measured: one that was not was dominated by one that was.
        """
        complete = [c for c in self.candidates() if c.status == "complete" and self._is_measured(c)]
        values = [[c.values[o.name] for o in self.objectives] for c in complete]
        mask = non_dominated(values, [o.direction for o in self.objectives])
        front = [c for c, on_front in zip(complete, mask, strict=True) if on_front]
        first = self.objectives[0]
        return sorted(front, key=lambda c: c.values[first.name], reverse=first.direction == "maximize")

    def run(self, *, track: Track = silent) -> None:
        """Evaluate architectures until `settings.trials` are complete or failed, or the space has no more.

        Sets `stopped` where it ends before that.

        Raises:
            UserError: nothing satisfies the constraints (with the nearest miss), or every evaluation fails.
        """
        self._resume_interrupted()
        done = sum(c.status != "infeasible" for c in self._known.values())
        if done < self.settings.trials:
            self._prepare(track)
        for _ in track(self._steps(self.settings.trials - done), "search", self.settings.trials, done=done):
            pass

    def _prepare(self, track: Track) -> None:
        """Find the limits of the filters, and queue what the search begins with."""
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
        """The same architectures in each process that works on this study."""
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
        """Measure those of the lowest estimates, where estimates have ruled out everything: they may be wrong."""
        from espalier.nas.search.parameters import to_parameters

        cascade = self.cascade
        if cascade is None:
            return
        guessed = [c for c in self._known.values() if c.latency and c.latency.fidelity == "estimate"]
        for past in sorted(guessed, key=lambda c: c.values[cascade.name])[:RECHECKED_ESTIMATES]:
            cascade.measure(past.architecture)  # it is now known, and no longer guessed
            del self._known[past.architecture.id]
            self.study.enqueue_trial(to_parameters(past.architecture))
            candidate = self._next(unseen=False)
            if candidate is not None and candidate.status == "complete":
                yield candidate

    def _is_measured(self, candidate: Candidate) -> bool:
        return self.cascade is None or (candidate.latency is not None and candidate.latency.fidelity == "measurement")

    def _would_enter_front(self, values: Mapping[str, float]) -> bool:
        """Whether no complete and measured candidate dominates these values."""
        certain = [c.values for c in self._known.values() if c.status == "complete" and self._is_measured(c)]
        points = [[row[o.name] for o in self.objectives] for row in (values, *certain)]
        return bool(non_dominated(points, [o.direction for o in self.objectives])[0])

    def _any_complete(self) -> bool:
        return any(candidate.status == "complete" for candidate in self._known.values())

    def _next(self, *, unseen: bool) -> Candidate | None:
        """Ask for an architecture, judge it and tell the result; `None` if it was known already."""
        from espalier.nas.search.parameters import to_architecture, to_parameters

        if unseen:
            architecture = self._draw_unseen()
            self.study.enqueue_trial(to_parameters(architecture))
        trial = self.study.ask(self._distributions)
        architecture = to_architecture(trial.params)
        known = self._known.get(architecture.id)
        if known is not None:
            trial.set_user_attr(RECORD, {"duplicate_of": known.trial})
            # In a population a duplicate would only crowd out others and fill the study with trials to go through;
            # TPE has to see it, or it goes on proposing it.
            self._tell(trial, known if self.settings.sampler == "tpe" else None)
            return None
        candidate = self._judge(trial.number, architecture)
        trial.set_user_attr(RECORD, candidate.to_record())
        self._tell(trial, candidate)
        self._known[architecture.id] = candidate
        return candidate

    def _judge(self, trial: int, architecture: Architecture) -> Candidate:
        if not self.space.contains(architecture):
            return Candidate(trial, architecture, "infeasible", {}, {}, "the space rules it out", 0.0)
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
        """Finish the trial with the candidate's values, or as failed where there is nothing to learn from it."""
        from optuna.trial import TrialState

        if candidate is not None and candidate.status == "complete":
            self.study.tell(trial, [candidate.values[o.name] for o in self.objectives])
        else:
            self.study.tell(trial, state=TrialState.FAIL)

    def _resume_interrupted(self) -> None:
        """Close the trials that a killed process left open, and put their architectures first in the queue."""
        from optuna.trial import TrialState

        for trial in self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            record = _record(trial)
            if record.get("status") == "complete":  # killed between the record and the end
                values = [record["values"][o.name] for o in self.objectives]
                self.study.tell(trial.number, values)
                continue
            self.study.tell(trial.number, state=TrialState.FAIL)
            if not record and trial.params.keys() == self._distributions.keys():
                self.study.enqueue_trial(trial.params)

    def _draw_unseen(self) -> Architecture:
        while True:
            architecture = self.space.sample(self.generator)
            if architecture.id not in self._known:
                return architecture


def _record(trial: FrozenTrial) -> dict[str, Any]:
    """What was found out in a trial; empty while it runs."""
    return trial.user_attrs.get(RECORD, {})


def _cached(evaluators: Mapping[str, Evaluator], names: Sequence[str]) -> dict[str, Evaluator]:
    """The evaluators, of which those of these names are not asked twice about an architecture."""
    for name in names:
        find_evaluator(evaluators, name, where="search")
    return {
        name: replace(e, evaluate=functools.cache(e.evaluate)) if name in names else e for name, e in evaluators.items()
    }
