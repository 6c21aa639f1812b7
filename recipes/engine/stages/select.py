"""Choose architectures from the trained supernets themselves."""

from __future__ import annotations

import json
from typing import Any

from espalier.nas.architecture import Architecture
from espalier.nas.checkpoint import load_state, save_state
from espalier.nas.choices import InputChoice
from espalier.nas.errors import UserError
from espalier.recipes.config.schema import SelectSettings
from espalier.recipes.engine.budget import Kept
from espalier.recipes.engine.context import Context
from espalier.recipes.engine.supernet_store import TrainedSupernet, find, training_of
from espalier.supernets.evaluation import SupernetEvaluator
from espalier.supernets.selection.decisions import Decision
from espalier.supernets.selection.perturbation import Perturbation

TINY = 1e-300
"""Of a probability whose logarithm is taken."""
SHARE_OF_LR = 0.1
"""Of the supernet's learning rate, in the training between decisions (the authors' code of perturbation selection)."""


def run(context: Context) -> dict[str, Any]:
    """Every method chooses from each supernet; of a divided space, the best on the `selection` split is taken.

    Under a budget, a choice that breaks it makes way for the nearest architecture that keeps it.

    Raises:
        UserError: no choice of any method has one that keeps the budget near it.
    """
    settings = context.recipe.select
    assert settings is not None
    inherited = context.predictors.make(["inherited"])["inherited"]
    candidates: list[dict[str, Any]] = []
    decisions: list[dict[str, Any]] = []
    misses: list[UserError] = []
    for part in (part["name"] for part in context.outputs["supernet"]["parts"]):
        for method in settings.methods:
            supernet = find(context, part)  # as it was trained: perturbation trains it further
            if method == "argmax":
                architecture = supernet.strategy.preferred()
            else:
                architecture, made = _perturbation(context, settings, supernet)
                decisions += [{"part": part, "method": method, **_describe(context, decision)} for decision in made]
            try:
                kept = _within_budget(context, architecture, supernet, method)
            except UserError as error:
                misses.append(error)
                continue
            candidates.append(
                {
                    "method": method,
                    "part": part,
                    "id": kept.architecture.id,
                    "notation": context.space.format(kept.architecture),
                    "architecture": json.loads(kept.architecture.to_json()),
                    "accuracy": inherited(kept.architecture).value,
                    **_budget_record(context, kept),
                }
            )
    if not candidates:
        raise misses[0]
    by_method = ([c for c in candidates if c["method"] == method] for method in settings.methods)
    best = [max(found, key=lambda candidate: candidate["accuracy"]) for found in by_method if found]
    return {"chosen": best, "candidates": candidates, "decisions": decisions, "misses": [str(m) for m in misses]}


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


def _budget_record(context: Context, kept: Kept) -> dict[str, Any]:
    """What the budget had to say; nothing without one."""
    record: dict[str, Any] = {}
    if kept.climb is not None:
        record["latency"] = kept.climb.to_record()
    if kept.replaces is not None:
        first, why = kept.replaces
        record["replaces"] = {"id": first.id, "notation": context.space.format(first), "why": why}
    return record


def _perturbation(
    context: Context, settings: SelectSettings, supernet: TrainedSupernet
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
        follows=_epochs(context, supernet.name),
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


def _epochs(context: Context, part: str) -> int:
    """How long a supernet was trained."""
    (rows,) = (p["rows"] for p in context.outputs["supernet"]["parts"] if p["name"] == part)
    return int(rows[-1]["epoch"])


def _describe(context: Context, decision: Decision) -> dict[str, Any]:
    """A decision with the names of what it was about."""
    choice = context.space.choices()[decision.choice]
    removed = choice.edges if isinstance(choice, InputChoice) and choice.edges else choice.options
    return {
        "choice": choice.name,
        "option": str(choice.options[decision.option]),
        "comparisons": [
            {
                **comparison.model_dump(mode="json"),
                "candidates": [str(removed[candidate]) for candidate in comparison.candidates],
                "decided": str(removed[comparison.decided]),
            }
            for comparison in decision.comparisons
        ],
    }
