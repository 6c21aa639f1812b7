"""The search: an Optuna study over the architectures of a space."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from pydantic import Field, PositiveInt

from nas.architecture import Architecture, Option
from nas.errors import UserError
from nas.objective import Constraint, Evaluator, evaluator
from nas.pareto import non_dominated
from nas.progress import Track, silent
from nas.settings import Settings
from nas.space import SearchSpace

if TYPE_CHECKING:
    from optuna import Study
    from optuna.trial import FrozenTrial, Trial

MAX_IDLE_PROPOSALS = 50
"""Proposals in a row that bring nothing new before an unseen architecture is drawn uniformly instead."""
MAX_REJECTED = 2000
"""Architectures in a row that break a constraint before the search gives up."""
MAX_FAILED = 10
"""Failures in a row, without one success, before the search gives up: something general is wrong."""


class SearchSettings(Settings):
    """What is looked for, and how."""

    trials: PositiveInt = 100
    """Different architectures to evaluate."""
    sampler: Literal["random", "tpe", "nsga2", "regularized_evolution"] = "nsga2"
    """Who proposes the next architecture."""
    objectives: tuple[str, ...] = Field(("accuracy", "macs"), min_length=1)
    """Names of what is improved: accuracy, latency_ms, params, macs, or any predictor."""
    constraints: tuple[str, ...] = ()
    """Limits such as `params <= 0.6e6`; an architecture that breaks one is not evaluated further."""
    population_size: PositiveInt = 20
    """Architectures alive at a time, for nsga2 and regularized_evolution."""
    sample_size: PositiveInt = 5
    """Size of the tournament of regularized_evolution."""
    storage: str | None = None
    """An Optuna storage URL (`sqlite:///...`, `postgresql://...`); null keeps the study in the run folder."""


@dataclass(frozen=True)
class Candidate:
    """An architecture that a search has finished with.

    Attributes:
        trial: the number of the trial.
        status: `complete`, `infeasible` (a constraint is broken) or `failed`.
        values: every number found out, by evaluator name; those before the failure where there was one.
        reason: why it is infeasible or failed, else empty.
        seconds: wall time of the evaluation.
    """

    trial: int
    architecture: Architecture
    status: Literal["complete", "infeasible", "failed"]
    values: Mapping[str, float]
    reason: str
    seconds: float


class Search:
    """A study in progress, whose finished trials outlive the process.

    Args:
        space: where architectures come from.
        evaluators: what can be asked for by name; asked in the order of the mapping, so put cheap ones first.
        settings: see `SearchSettings`.
        path: the file of the embedded storage. name: the study's name in the storage. seed: of all proposals.

    Raises:
        UserError: an objective or a constraint has no evaluator, or the storage cannot be used.
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
    ) -> None:
        import optuna

        from nas.search.samplers import make_sampler
        from nas.search.storage import open_storage

        self.space = space
        self.settings = settings
        self.objectives = [evaluator(evaluators, o, where="search.objectives") for o in settings.objectives]
        self.constraints = [Constraint.parse(c, where="search.constraints") for c in settings.constraints]
        for constraint in self.constraints:
            evaluator(evaluators, constraint.name, where="search.constraints")
        self.evaluators = evaluators
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.storage = open_storage(settings.storage, path)
        self.study: Study = optuna.create_study(
            study_name=name,
            storage=self.storage,
            directions=[o.direction for o in self.objectives],
            load_if_exists=True,
        )
        started = len(self.study.get_trials(deepcopy=False))
        # A resumed search must not repeat the draws of its first part, so its samplers start elsewhere.
        self.study.sampler = make_sampler(
            settings.sampler,
            seed=seed + started,
            population_size=settings.population_size,
            sample_size=settings.sample_size,
        )
        self.generator = torch.Generator().manual_seed(seed + started)
        self._distributions: dict[str, optuna.distributions.BaseDistribution] = {
            choice.name: optuna.distributions.CategoricalDistribution([_to_optuna(o) for o in choice.options])
            for choice in space.choices().values()
        }
        self._known = {candidate.architecture.id: candidate for candidate in self.candidates()}

    def candidates(self) -> list[Candidate]:
        """All finished architectures, each once, in the order of their trials."""
        records = ((trial, _record(trial)) for trial in self.study.get_trials(deepcopy=False))
        return [_candidate(trial, record) for trial, record in records if record and "duplicate_of" not in record]

    def front(self) -> list[Candidate]:
        """The complete candidates that no other dominates, best first by the first objective."""
        complete = [c for c in self.candidates() if c.status == "complete"]
        values = [[c.values[o.name] for o in self.objectives] for c in complete]
        mask = non_dominated(values, [o.direction for o in self.objectives])
        front = [c for c, on_front in zip(complete, mask, strict=True) if on_front]
        first = self.objectives[0]
        return sorted(front, key=lambda c: c.values[first.name], reverse=first.direction == "maximize")

    def run(self, *, track: Track = silent) -> None:
        """Evaluate architectures until `settings.trials` are complete or failed, or the space has no more.

        Raises:
            UserError: nothing satisfies the constraints (with the nearest miss), or every evaluation fails.
        """
        self._take_up_interrupted()
        done = sum(c.status != "infeasible" for c in self._known.values())
        for _ in track(self._steps(self.settings.trials - done), "search", self.settings.trials, done=done):
            pass

    def _steps(self, trials: int) -> Iterable[Candidate]:
        """Yields each newly evaluated candidate."""
        idle = rejected = failed = 0
        last_reason = ""
        while trials > 0 and len(self._known) < self.space.size:
            candidate = self._next(unseen=idle >= MAX_IDLE_PROPOSALS)
            if candidate is None:
                idle += 1
                continue
            idle = 0
            if candidate.status == "infeasible":
                rejected += 1
                if rejected >= MAX_REJECTED:
                    break
                continue
            rejected = 0
            failed = failed + 1 if candidate.status == "failed" else 0
            last_reason = candidate.reason or last_reason
            if failed >= MAX_FAILED and not any(c.status == "complete" for c in self._known.values()):
                raise UserError("search", f"the first {failed} architectures all failed: {last_reason}")
            trials -= 1
            yield candidate
        if not any(c.status == "complete" for c in self._known.values()):
            raise UserError("search.constraints", self._nearest_miss())

    def _next(self, *, unseen: bool) -> Candidate | None:
        """Ask for an architecture, evaluate it and tell the result; `None` if it was known already."""
        if unseen:
            architecture = self._draw_unseen()
            self.study.enqueue_trial({name: _to_optuna(option) for name, option in architecture.items()})
        trial = self.study.ask(self._distributions)
        architecture = Architecture({name: _from_optuna(option) for name, option in trial.params.items()})
        known = self._known.get(architecture.id)
        if known is not None:
            trial.set_user_attr("record", {"duplicate_of": known.trial})
            self._tell(trial, known)
            return None
        started = time.perf_counter()
        status, values, reason = self._evaluate(architecture)
        record = {
            "architecture": json.loads(architecture.to_json()),
            "id": architecture.id,
            "status": status,
            "values": {name: value for name, value in values.items() if math.isfinite(value)},
            "reason": reason,
            "seconds": round(time.perf_counter() - started, 4),
        }
        trial.set_user_attr("record", record)
        candidate = Candidate(trial.number, architecture, status, record["values"], reason, record["seconds"])
        self._tell(trial, candidate)
        self._known[architecture.id] = candidate
        return candidate

    def _evaluate(
        self, architecture: Architecture
    ) -> tuple[Literal["complete", "infeasible", "failed"], dict[str, float], str]:
        """All that is asked for, constraints first; stops at the first broken one and at the first failure."""
        wanted = {c.name for c in self.constraints}
        order = sorted(self.evaluators, key=lambda name: name not in wanted)  # stable: cheap first within each part
        wanted |= {o.name for o in self.objectives}
        values: dict[str, float] = {}
        for name in order:
            if name not in wanted:
                continue
            try:
                values[name] = self.evaluators[name](architecture)
            except UserError:
                raise
            except Exception as error:  # noqa: BLE001 - the reason is recorded, and the study goes on
                return "failed", values, f"{name}: {type(error).__name__}: {error}"
            if not math.isfinite(values[name]):
                return "failed", values, f"{name} is {values[name]}"
            for constraint in self.constraints:
                if constraint.name == name and constraint.violation(values[name]) > 0:
                    return "infeasible", values, f"{name} = {values[name]:g}, not {constraint}"
        return "complete", values, ""

    def _tell(self, trial: Trial, candidate: Candidate) -> None:
        from optuna.trial import TrialState

        if candidate.status == "complete":
            self.study.tell(trial, [candidate.values[o.name] for o in self.objectives])
        else:
            self.study.tell(trial, state=TrialState.FAIL)

    def _take_up_interrupted(self) -> None:
        """Close the trials that a killed process left open, and put their architectures first in the queue."""
        from optuna.trial import TrialState

        for trial in self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            record = _record(trial)
            if record and record.get("status") == "complete":  # killed between the record and the end
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

    def _nearest_miss(self) -> str:
        misses = [
            (constraint.violation(c.values[constraint.name]) / (abs(constraint.bound) or 1), c)
            for c in self._known.values()
            for constraint in self.constraints
            if c.status == "infeasible" and constraint.name in c.values
            if constraint.violation(c.values[constraint.name]) > 0
        ]
        if not misses:
            reasons = {c.reason for c in self._known.values()}
            return f"no architecture could be evaluated ({'; '.join(sorted(reasons)) or 'the space is empty'})"
        _, nearest = min(misses, key=lambda miss: miss[0])
        return f"none of {len(self._known)} architectures is allowed; the nearest miss has {nearest.reason}"


def _record(trial: FrozenTrial) -> dict[str, Any] | None:
    return trial.user_attrs.get("record")


def _candidate(trial: FrozenTrial, record: dict[str, Any]) -> Candidate:
    return Candidate(
        trial.number,
        Architecture(record["architecture"]),
        record["status"],
        record["values"],
        record["reason"],
        record["seconds"],
    )


def _to_optuna(option: Option) -> str | int | float | bool:
    """Optuna stores plain scalars; a tuple of inputs goes in as its JSON."""
    return json.dumps(list(option)) if isinstance(option, tuple) else option


def _from_optuna(option: Any) -> Option:
    chosen: Option = tuple(json.loads(option)) if isinstance(option, str) and option.startswith("[") else option
    return chosen
