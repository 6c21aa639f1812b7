"""Choose architectures from the trained supernets themselves."""

from __future__ import annotations

from espalier.nas.architecture import Architecture
from espalier.nas.checkpoint import load_state, save_state
from espalier.nas.choices import InputChoice
from espalier.nas.errors import UserError
from espalier.recipes.config.schema import SelectSettings
from espalier.recipes.engine.budget import Kept
from espalier.recipes.engine.context import Context
from espalier.recipes.engine.supernet_store import TrainedSupernet, find, training_of
from espalier.recipes.records.base import CandidateLatency
from espalier.recipes.records.search import ReplacedArchitecture, SelectedArchitecture, SelectResult
from espalier.recipes.records.supernet import Comparison, SupernetPart
from espalier.recipes.records.supernet import Decision as DecisionRecord
from espalier.supernets.evaluation import SupernetEvaluator
from espalier.supernets.selection.decisions import Decision
from espalier.supernets.selection.perturbation import Perturbation

TINY = 1e-300
"""Of a probability whose logarithm is taken."""
SHARE_OF_LR = 0.1
"""Of the supernet's learning rate, in the training between decisions (the authors' code of perturbation selection)."""


def run(context: Context) -> SelectResult:
    """Every method chooses from each supernet; of a divided space, the best on the `selection` split is taken.

    Under a budget, a choice that breaks it makes way for the nearest architecture that keeps it.

    Raises:
        UserError: no choice of any method has one that keeps the budget near it.
    """
    settings = context.recipe.select
    assert settings is not None
    inherited = context.predictors.make(["inherited"])["inherited"]
    candidates: list[SelectedArchitecture] = []
    decisions: list[DecisionRecord] = []
    misses: list[UserError] = []
    for part in context.stages.supernet.parts if context.stages.supernet else ():
        for method in settings.methods:
            supernet = find(context, part.name)  # as it was trained: perturbation trains it further
            if method == "argmax":
                architecture = supernet.strategy.preferred()
            else:
                architecture, made = _perturbation(context, settings, supernet, part)
                decisions += [_describe(context, decision, part.name, method) for decision in made]
            try:
                kept = _within_budget(context, architecture, supernet, method)
            except UserError as error:
                misses.append(error)
                continue
            candidates.append(
                SelectedArchitecture(
                    architecture=kept.architecture,
                    notation=context.space.format(kept.architecture),
                    method=method,
                    part=part.name,
                    accuracy=inherited(kept.architecture).value,
                    latency=None if kept.result is None else CandidateLatency.of(kept.result),
                    replaces=_replaced(context, kept),
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


def _within_budget(context: Context, chosen: Architecture, supernet: TrainedSupernet, method: str) -> Kept:
    """The nearest architecture by the method's own lights: the likeliest of argmax, the most accurate of perturbation.

    Raises:
        UserError: none keeps the budget.
    """
    if context.budget is None:
        return Kept(chosen, None)
    if method != "argmax":
        inherited = context.predictors.make(["inherited"])["inherited"]
        return context.budget.nearest(chosen, lambda architecture: inherited(architecture).value)
    p = {
        name: row.detach().double().cpu().clamp_min(TINY).log() for name, row in supernet.strategy.preferences().items()
    }

    def log_likelihood(architecture: Architecture) -> float:
        gates = context.space.gates(architecture)
        return sum(float(row[gates[name]]) for name, row in p.items())

    return context.budget.nearest(chosen, log_likelihood)


def _replaced(context: Context, kept: Kept) -> ReplacedArchitecture | None:
    if kept.replaces is None:
        return None
    first, why = kept.replaces
    return ReplacedArchitecture(architecture=first, notation=context.space.format(first), why=why)


def _perturbation(
    context: Context, settings: SelectSettings, supernet: TrainedSupernet, part: SupernetPart
) -> tuple[Architecture, list[Decision]]:
    """Goes on from the visit at which an earlier process was killed."""
    trained = context.recipe.supernet
    assert trained is not None
    lr = trained.lr * SHARE_OF_LR if settings.lr is None else settings.lr
    selection = Perturbation(
        supernet.space,
        supernet.strategy,
        SupernetEvaluator(supernet.space, context.mixed_batches(context.splits.selection), seed=context.seed("noise")),
        criterion=settings.criterion,
        topology=settings.topology,
        interval=settings.epochs,
        seed=context.seed(f"order of decisions {supernet.name}"),
    )
    tuning = trained.model_copy(
        update={
            "lr": lr,
            "schedule": "constant",
            "warmup_epochs": 0,
            "ema_decay": None,
            "epochs": max(1, selection.total_epochs),
        }
    )
    training = training_of(
        context,
        supernet.space,
        supernet.strategy,
        tuning,
        purpose=f"select {supernet.name}",
        follows=part.rows[-1].epoch,
    )
    checkpoint = context.run / "checkpoints" / f"select-{context.keys['select']}-{supernet.name}.pt"
    if checkpoint.exists():
        state = load_state(checkpoint)
        training.load_state_dict(state["training"])
        selection.load_state_dict(state["selection"])

    def tune(epochs: int) -> None:
        for _ in range(epochs):
            context.run.log("select", part=supernet.name, **training.run_epoch())

    def save() -> None:
        save_state(checkpoint, {"training": training.state_dict(), "selection": selection.state_dict()})

    architecture = selection.run(tune, track=context.track, description=f"select ({supernet.name})", on_visit=save)
    return architecture, selection.decisions


def _describe(context: Context, decision: Decision, part: str, method: str) -> DecisionRecord:
    """A decision with the names of what it was about."""
    choice = context.space.choices()[decision.choice]
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
