"""Selection by perturbation: keep the options whose removal hurts the supernet most.

Wang, Cheng, Chen, Tang & Hsieh, "Rethinking Architecture Selection in Differentiable NAS", ICLR 2021.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from pydantic import ValidationError

from espalier.nas.architecture import Architecture
from espalier.nas.choices import InputChoice
from espalier.nas.errors import UserError
from espalier.nas.gates import Gates, Mixture
from espalier.nas.progress import Track, silent
from espalier.nas.space import SearchSpace
from espalier.supernets.evaluation import Evaluate
from espalier.supernets.selection.criterion import Criterion, compare
from espalier.supernets.selection.decisions import Comparison, Decision
from espalier.supernets.selection.schedule import Visit, keeps_edges, plan_visits, visit_epochs
from espalier.supernets.strategy import Strategy

Topology = Literal["conditional", "leave_one_out"]


class Perturbation:
    """A selection in progress: it decides one choice after another, and fine-tunes the supernet between visits.

    Its result so far is `strategy.region`, which each decision narrows: from then on the supernet is trained and
    evaluated with that choice decided.

    Args:
        space: the trained supernet.
        strategy: of its training; gives the mixture that is perturbed.
        evaluate: evaluates the current supernet.
        criterion: see `compare`.
        topology: see `project_topology`.
        interval: epochs of fine-tuning between two visits.
        seed: of the order of the choices.

    Attributes:
        visits: the choices of each visit.
        done: how many visits have been made.
        decisions: in the order they were made.
    """

    def __init__(
        self,
        space: SearchSpace,
        strategy: Strategy,
        evaluate: Evaluate,
        *,
        criterion: Criterion = "auto",
        topology: Topology = "conditional",
        interval: int = 5,
        seed: int,
    ) -> None:
        self._space = space
        self._strategy = strategy
        self._evaluate = evaluate
        self._criterion = criterion
        self._topology = topology
        self._interval = interval
        self.visits = plan_visits(space, strategy.region, torch.Generator().manual_seed(seed))
        self.done = 0
        self.decisions: list[Decision] = []

    @property
    def epochs(self) -> list[int]:
        """Epochs of tuning before each visit, counted from the first."""
        topologies = sum(keeps_edges(self._space.choices()[visit[0]]) for visit in self.visits)
        return visit_epochs(len(self.visits) - topologies, topologies, self._interval)

    @property
    def total_epochs(self) -> int:
        """Epochs of fine-tuning until the last visit; 0 if there is nothing to decide."""
        return max(self.epochs, default=0)

    def run(
        self,
        tune: Callable[[int], None],
        *,
        track: Track = silent,
        description: str = "select",
        on_visit: Callable[[], None] | None = None,
    ) -> Architecture:
        """Make all remaining visits.

        Args:
            tune: trains the supernet for this many more epochs.
            track: shows progress.
            description: of the progress.
            on_visit: called after each visit. To be able to go on from there, keep `state_dict` together with that of
                the training, whose strategy holds the region.

        Returns:
            The selected architecture.

        Raises:
            Diverged: a loss is not finite.
        """
        epochs, total = self.epochs, len(self.visits)
        for number in track(range(self.done, total), description, total, done=self.done):
            if number and (pause := epochs[number] - epochs[number - 1]):
                tune(pause)
            for name in self.visits[number]:
                self._decide(name)
            self.done += 1
            if on_visit:
                on_visit()
        return self._strategy.region.architecture(self._space)

    def _decide(self, name: str) -> None:
        choice, region = self._space.choices()[name], self._strategy.region
        gates = self._strategy.mean_gates()
        if keeps_edges(choice):
            decision = project_topology(
                choice, region[name], gates, self._evaluate, criterion=self._criterion, topology=self._topology
            )
        else:
            decision = project_operation(name, gates, self._evaluate, criterion=self._criterion)
        self._strategy.region = region.decide(name, decision.option)
        self.decisions.append(decision)

    def state_dict(self) -> dict[str, Any]:
        """Lists, numbers and strings from which, with the state of the training, `run` goes on."""
        return {
            "visits": [list(visit) for visit in self.visits],
            "done": self.done,
            "decisions": [decision.model_dump(mode="json") for decision in self.decisions],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from `state`.

        Raises:
            UserError: it is of another space, or damaged.
        """
        visits: list[Visit] = [tuple(visit) for visit in state["visits"]]
        for name in (name for visit in visits for name in visit):
            if name not in self._space.choices():
                raise UserError(f"checkpoint.{name}", "of another space: no such choice here", code="mismatch")
        try:
            decisions = [Decision.model_validate(record) for record in state["decisions"]]
        except ValidationError as error:
            raise UserError("checkpoint.decisions", "not records of decisions", code="unreadable") from error
        self.visits, self.done, self.decisions = visits, state["done"], decisions


def project_operation(name: str, gates: Gates, evaluate: Evaluate, *, criterion: Criterion) -> Decision:
    """Keep the option whose removal hurts most.

    Args:
        name: of the choice.
        gates: under which it is a mixture of its open options.
        evaluate: evaluates gates.
        criterion: see `compare`.

    Raises:
        ValueError: the choice is not a mixture.
    """
    gate = gates[name]
    if not isinstance(gate, Mixture):
        raise ValueError(f"choice {name} is a path, not a mixture")
    evaluations = evaluate([{**gates, name: without_option(gate, option)} for option in gate.active])
    comparison = compare(dict(zip(gate.active, evaluations, strict=True)), criterion, hurts="most")
    return Decision(choice=name, option=comparison.decided, comparisons=(comparison,))


def without_option(gate: Mixture, option: int) -> Mixture:
    """The mixture with one option removed, the weights of the others as they were: they then sum to `1 - p`.

    Rescaling them to a sum of 1 would mix a change of scale into the effect of the removal.
    """
    return Mixture(gate.weights, tuple(active for active in gate.active if active != option))


def project_topology(
    choice: InputChoice,
    options: Sequence[int],
    gates: Gates,
    evaluate: Evaluate,
    *,
    criterion: Criterion,
    topology: Topology,
) -> Decision:
    """Drop the inputs whose removal hurts least until as many remain as the choice keeps.

    Args:
        choice: between inputs.
        options: its open subsets, all those of their inputs.
        gates: of the other choices.
        evaluate: evaluates gates.
        criterion: see `compare`.
        topology: `conditional` evaluates the remaining inputs anew after each one that is dropped; `leave_one_out`,
            as the authors do, evaluates each once with all others present, and so may drop two redundant inputs.
    """
    comparisons: list[Comparison] = []
    allowed = tuple(options)
    while len(allowed) > 1:
        if topology == "conditional" or not comparisons:
            inputs = sorted(choice.inputs(allowed))
            candidates = [{**gates, choice.name: choice.open(choice.without(allowed, i))} for i in inputs]
            without = dict(zip(inputs, evaluate(candidates), strict=True))
        comparisons.append(compare(without, criterion, hurts="least"))
        dropped = comparisons[-1].decided
        allowed = choice.without(allowed, dropped)
        del without[dropped]
    return Decision(choice=choice.name, option=allowed[0], comparisons=tuple(comparisons))
