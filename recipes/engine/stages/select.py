"""Choose architectures from the trained supernets themselves."""

from __future__ import annotations

from collections.abc import Callable

from espalier.nas.architecture import Architecture
from espalier.nas.checkpoint import load_state, save_state
from espalier.nas.choices import InputChoice
from espalier.nas.data import Batches
from espalier.nas.errors import UserError
from espalier.nas.predictor import Predictor
from espalier.nas.progress import Track
from espalier.nas.run import RunFolder
from espalier.nas.seeds import Seeds
from espalier.nas.space import SearchSpace
from espalier.recipes.config.sections.select import SelectSettings
from espalier.recipes.engine.budget import Budget, BudgetChoice
from espalier.recipes.engine.supernet_factory import SupernetFactory
from espalier.recipes.engine.supernet_store import SupernetStore, TrainedSupernet
from espalier.recipes.records.base import CandidateLatency
from espalier.recipes.records.search import ReplacedArchitecture, SelectedArchitecture, SelectResult
from espalier.recipes.records.supernet import Comparison, SupernetResult
from espalier.recipes.records.supernet import Decision as DecisionRecord
from espalier.supernets.evaluation import SupernetEvaluator
from espalier.supernets.selection.decisions import Decision
from espalier.supernets.selection.perturbation import Perturbation

TINY = 1e-300
"""Of a probability whose logarithm is taken."""
SHARE_OF_LR = 0.1
"""Of the supernet's learning rate, in the training between decisions (the authors' code of perturbation selection)."""


def run(
    settings: SelectSettings,
    trained: SupernetResult,
    *,
    space: SearchSpace,
    supernets: SupernetFactory,
    store: SupernetStore,
    inherited: Predictor,
    selection: Batches,
    budget: Budget | None,
    seeds: Seeds,
    run: RunFolder,
    key: str,
    track: Track,
) -> SelectResult:
    """Every method chooses from each supernet; of a divided space, the best on the `selection` split is taken.

    If a choice exceeds the budget, the nearest architecture that meets it replaces the choice.

    Args:
        settings: the recipe's section `select`.
        trained: the supernets to choose from.
        space: of the architectures.
        supernets: makes the trainings between decisions.
        store: has the trained supernets.
        inherited: the accuracy of an architecture with the supernets' weights.
        selection: the images that decisions are made by, each batch with images of all classes.
        budget: what choices have to meet, if the recipe has one.
        seeds: of the order of decisions and of noise.
        run: the run folder, for checkpoints and the log.
        key: the stage's cache key, part of the checkpoints' names.
        track: shows progress.

    Raises:
        UserError: no choice of any method has an architecture near it that meets the budget.
    """
    candidates: list[SelectedArchitecture] = []
    decisions: list[DecisionRecord] = []
    misses: list[UserError] = []
    for part in trained.parts:
        for method in settings.methods:
            supernet = store.find(part.name)  # as it was trained: perturbation trains it further
            if method == "argmax":
                architecture = supernet.strategy.preferred()
            else:
                perturbation = _perturbation(settings, supernet, selection, seeds)
                architecture = _run(
                    perturbation,
                    supernet,
                    settings,
                    supernets=supernets,
                    follows=part.rows[-1].epoch,
                    run=run,
                    key=key,
                    track=track,
                )
                decisions += [_record(decision, space, part.name, method) for decision in perturbation.decisions]
            try:
                utility = _log_likelihood(supernet, space) if method == "argmax" else _accuracy(inherited)
                choice = BudgetChoice(architecture) if budget is None else budget.nearest(architecture, utility)
            except UserError as error:
                misses.append(error)
                continue
            candidates.append(
                SelectedArchitecture(
                    architecture=choice.architecture,
                    notation=space.format(choice.architecture),
                    method=method,
                    part=part.name,
                    accuracy=inherited(choice.architecture).value,
                    latency=None if choice.latency is None else CandidateLatency.of(choice.latency),
                    replaces=_replaced(choice, space),
                )
            )
    if not candidates:
        raise misses[0]
    by_method = ([c for c in candidates if c.method == method] for method in settings.methods)
    return SelectResult(
        chosen=tuple(max(found, key=lambda candidate: candidate.accuracy) for found in by_method if found),
        candidates=tuple(candidates),
        decisions=tuple(decisions),
        misses=tuple(map(str, misses)),
    )


def _accuracy(inherited: Predictor) -> Callable[[Architecture], float]:
    """What perturbation prefers: the accuracy with the supernets' weights."""
    return lambda architecture: inherited(architecture).value


def _log_likelihood(supernet: TrainedSupernet, space: SearchSpace) -> Callable[[Architecture], float]:
    """What argmax prefers: the likelihood under the architecture parameters."""
    log_p = {
        name: row.detach().double().cpu().clamp_min(TINY).log() for name, row in supernet.strategy.preferences().items()
    }

    def log_likelihood(architecture: Architecture) -> float:
        gates = space.gates(architecture)
        return sum(float(row[gates[name]]) for name, row in log_p.items())

    return log_likelihood


def _replaced(choice: BudgetChoice, space: SearchSpace) -> ReplacedArchitecture | None:
    if choice.replaces is None:
        return None
    first, why = choice.replaces
    return ReplacedArchitecture(architecture=first, notation=space.format(first), why=why)


def _perturbation(
    settings: SelectSettings, supernet: TrainedSupernet, selection: Batches, seeds: Seeds
) -> Perturbation:
    return Perturbation(
        supernet.space,
        supernet.strategy,
        SupernetEvaluator(supernet.space, selection, seed=seeds("noise")),
        criterion=settings.criterion,
        topology=settings.topology,
        interval=settings.epochs,
        seed=seeds(f"order of decisions {supernet.name}"),
    )


def _run(
    perturbation: Perturbation,
    supernet: TrainedSupernet,
    settings: SelectSettings,
    *,
    supernets: SupernetFactory,
    follows: int,
    run: RunFolder,
    key: str,
    track: Track,
) -> Architecture:
    """The architecture that is left; goes on from the visit at which an earlier process was killed."""
    lr = supernets.settings.lr * SHARE_OF_LR if settings.lr is None else settings.lr
    constant = {"lr": lr, "schedule": "constant", "warmup_epochs": 0, "ema_decay": None}
    tuning = supernets.settings.model_copy(update={**constant, "epochs": max(1, perturbation.total_epochs)})
    training = supernets.training_of(
        supernet.space, supernet.strategy, tuning, purpose=f"select {supernet.name}", follows=follows
    )
    checkpoint = run / "checkpoints" / f"select-{key}-{supernet.name}.pt"
    if checkpoint.exists():
        state = load_state(checkpoint)
        training.load_state_dict(state["training"])
        perturbation.load_state_dict(state["selection"])

    def tune(epochs: int) -> None:
        for _ in range(epochs):
            run.log("select", part=supernet.name, **training.run_epoch())

    def save() -> None:
        save_state(checkpoint, {"training": training.state_dict(), "selection": perturbation.state_dict()})

    return perturbation.run(tune, track=track, description=f"select ({supernet.name})", on_visit=save)


def _record(decision: Decision, space: SearchSpace, part: str, method: str) -> DecisionRecord:
    """A decision with the names of what it was about."""
    choice = space.choices()[decision.choice]
    removed = choice.edges if isinstance(choice, InputChoice) and choice.edges else choice.options
    return DecisionRecord(
        part=part,
        method=method,
        choice=choice.name,
        option=str(choice.options[decision.option]),
        comparisons=tuple(
            Comparison(
                candidates=tuple(str(removed[candidate]) for candidate in comparison.candidates),
                accuracies=comparison.accuracies,
                losses=comparison.losses,
                images=comparison.images,
                decided=str(removed[comparison.decided]),
                decided_by=comparison.decided_by,
                margin=comparison.margin,
                standard_error=comparison.standard_error,
            )
            for comparison in decision.comparisons
        ),
    )
