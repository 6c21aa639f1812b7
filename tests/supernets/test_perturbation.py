"""Selection by perturbation on problems whose answer is known."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from itertools import permutations
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from espalier.nas.checkpoint import load_state, save_state
from espalier.nas.choices import InputChoice, LayerChoice
from espalier.nas.data import load
from espalier.nas.errors import UserError
from espalier.nas.gates import Gates, Mixture
from espalier.nas.region import Region
from espalier.nas.space import SearchSpace
from espalier.nas.spaces.darts import Darts
from espalier.nas.spaces.layers import Noise, relu_conv_bn
from espalier.nas.spaces.nasbench201 import NasBench201
from espalier.nas.task import Batch
from espalier.supernets.darts import DARTS, FixedAlpha
from espalier.supernets.evaluation import Evaluate, Evaluation, SupernetEvaluator
from espalier.supernets.selection.argmax import argmax
from espalier.supernets.selection.perturbation import Perturbation, Topology, project_topology, without_option
from espalier.supernets.selection.schedule import plan_visits, visit_epochs
from espalier.supernets.spos import SinglePathOneShot
from toy_space import ToyCell, ToySpace


class Times(nn.Module):
    """`scale x[index]` of a pair x."""

    def __init__(self, scale: float, index: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(scale))
        self.index = index

    def forward(self, x: Tensor) -> Tensor:
        return self.scale * x[:, self.index]


class OneEdge(SearchSpace):
    """Two signs as an image, of which the first is the class; one choice of what the logit is made of."""

    def __init__(self, order: Sequence[str] = "ABC") -> None:
        super().__init__()
        self.input_shape, self.num_classes = (1, 1, 2), 2
        operations = {"A": Times(0.3, 1), "B": Times(4.0, 0), "C": Times(0.0, 0)}
        self.operation = LayerChoice("operation", {name: operations[name] for name in order})

    def forward(self, x: Tensor, gates: Gates) -> Tensor:
        y = self.operation(x.flatten(1), gates)
        return torch.stack([torch.zeros_like(y), y], dim=1)


def signs() -> list[Batch]:
    """All four pairs of signs, sixteen times."""
    x = torch.tensor([(a, b) for a in (-1.0, 1.0) for b in (-1.0, 1.0)] * 16).view(-1, 1, 1, 2)
    return [(x, (x[:, 0, 0, 0] > 0).long())]


def no_tuning(epochs: int) -> None:
    pass


@pytest.mark.parametrize("order", list(permutations("ABC")))
def test_it_finds_the_operation_that_matters_where_alpha_is_wrong(order: tuple[str, ...]) -> None:
    """A = .3 x1 is noise, B = 4 x0 the signal, C nothing; alpha = (2, 0, 1). Accuracies without each: 1, 1/2, 1."""
    space = OneEdge(order)
    strategy = DARTS(space)
    alpha = {"A": 2.0, "B": 0.0, "C": 1.0}
    strategy.alphas.values["operation"].data = torch.tensor([alpha[name] for name in order])
    assert argmax(space, strategy.preferences(), strategy.region)["operation"] == "A"
    selection = Perturbation(space, strategy, SupernetEvaluator(space, signs(), seed=0), seed=0)
    assert selection.run(no_tuning)["operation"] == "B"
    (comparison,) = selection.decisions[0].comparisons
    assert dict(zip(order, comparison.accuracies, strict=True)) == {"A": 1.0, "B": 0.5, "C": 1.0}
    assert (comparison.decided_by, comparison.margin) == ("accuracy", 0.5)


def test_the_rest_of_a_mixture_keeps_its_weights() -> None:
    """p = (1/3, 1/3, 1/3) without option 1: the output is 2/3 of the mean of what remains."""
    gate = without_option(Mixture(torch.full((3,), 1 / 3), (0, 1, 2)), 1)
    assert gate.active == (0, 2)
    assert float(sum(gate.weights[i] for i in gate.active)) == pytest.approx(2 / 3)
    choice = LayerChoice("operation", {"A": Times(1.0, 0), "B": Times(10.0, 0), "C": Times(3.0, 0)})
    assert choice(torch.ones(1, 1), {"operation": gate}).item() == pytest.approx(2 / 3 * (1 + 3) / 2)


def percent(accuracy: float) -> Evaluation:
    return Evaluation(torch.arange(100) < accuracy, torch.ones(100))


@pytest.mark.parametrize(
    ("topology", "dropped", "kept", "accuracy", "judged"),
    [("conditional", [1, 3], (0, 2), 95, 7), ("leave_one_out", [1, 0], (2, 3), 58, 4)],
)
def test_two_edges_that_do_the_same(
    topology: Topology, dropped: list[int], kept: tuple[int, int], accuracy: int, judged: int
) -> None:
    """acc(S) = 50 + 40 [0 or 1 in S] + 5 [2 in S] + 3 [3 in S]; leaving out one each gives 98, 98, 93, 95."""
    choice = InputChoice("node", 4, chosen=2, edges=["a", "b", "c", "d"])
    seen: list[float] = []

    def worth(inputs: frozenset[int]) -> int:
        return 50 + 40 * bool(inputs & {0, 1}) + 5 * (2 in inputs) + 3 * (3 in inputs)

    def evaluate(candidates: Sequence[Gates]) -> list[Evaluation]:
        gates = [candidate["node"] for candidate in candidates]
        accuracies = [worth(choice.inputs(gate.active)) for gate in gates if isinstance(gate, Mixture)]
        seen.extend(accuracies)
        return [percent(accuracy) for accuracy in accuracies]

    decision = project_topology(
        choice, range(len(choice.subsets)), {}, evaluate, criterion="accuracy", topology=topology
    )
    assert choice.subsets[decision.option] == kept
    assert worth(frozenset(kept)) == accuracy
    assert seen[:4] == [98, 98, 93, 95]
    assert len(seen) == judged
    assert [comparison.decided for comparison in decision.comparisons] == dropped


@pytest.mark.parametrize(
    ("operations", "topologies", "published"),
    [(6, 0, [0, 5, 10, 15, 20, 24]), (14, 3, list(range(0, 81, 5)))],
    ids=["nasbench201", "darts"],
)
def test_visits_come_when_published(operations: int, topologies: int, published: list[int]) -> None:
    """25 and 81 epochs in all, one of them after the last visit."""
    assert visit_epochs(operations, topologies, 5) == published


def test_without_a_pause_to_shorten_every_visit_has_an_epoch_before_it() -> None:
    assert visit_epochs(3, 0, 1) == [0, 1, 2]


def random_judge(space: SearchSpace) -> Evaluate:
    """Losses drawn afresh, so that anything may win."""
    generator = torch.Generator().manual_seed(0)
    return lambda candidates: [Evaluation(torch.ones(8).bool(), torch.rand(8, generator=generator)) for _ in candidates]


def test_the_visits_of_darts_decide_a_normal_and_a_reduction_edge_each() -> None:
    space = Darts((1, 8, 8), 10, variant="S0", channels=2, cells=3)
    selection = Perturbation(space, SinglePathOneShot(space), random_judge(space), seed=0)
    assert selection.epochs == list(range(0, 81, 5))
    for number, visit in enumerate(selection.visits):
        normal, reduce = visit
        assert normal.startswith("normal")
        assert reduce.startswith("reduce")
        assert all(isinstance(space.choices()[name], LayerChoice if number < 14 else InputChoice) for name in visit)
    names = [name for visit in selection.visits for name in visit]
    assert sorted(names) == sorted(space.choices())
    drawn = [[name.removeprefix(kind) for name in names if name.startswith(kind)] for kind in ("normal", "reduce")]
    assert drawn[0] != drawn[1]


@pytest.mark.parametrize(
    ("make", "lengths"),
    [
        (lambda: NasBench201((1, 8, 8), 10, channels=2, cells=1), [1] * 6),
        (ToyCell, [1, 1, 1, 1]),
        (ToySpace, [1, 1, 1]),
    ],
)
def test_every_choice_is_decided_once_in_an_order_of_the_seed(
    make: Callable[[], SearchSpace], lengths: list[int]
) -> None:
    space = make()

    def plan(seed: int) -> list[tuple[str, ...]]:
        return plan_visits(space, Region.whole(space), torch.Generator().manual_seed(seed))

    assert plan(1) == plan(1)
    assert len({tuple(plan(seed)) for seed in range(20)}) > 1
    assert [len(visit) for visit in plan(1)] == lengths
    assert sorted(name for visit in plan(1) for name in visit) == sorted(space.choices())
    first = next(iter(space.choices()))
    decided = plan_visits(space, Region.whole(space).decide(first, 0), torch.Generator())
    assert first not in [name for visit in decided for name in visit]


def test_families_have_nothing_to_do_with_how_names_are_spelt() -> None:
    """Stem, body, neck and head of one network are decided one by one, with tuning in between."""
    choices = [LayerChoice(name, {"A": Times(1.0, 0), "B": Times(2.0, 0)}) for name in ("stem", "body", "neck", "head")]
    space = OneEdge()
    space.rest = nn.ModuleList(choices)
    visits = plan_visits(space, Region.whole(space).decide("operation", 0), torch.Generator().manual_seed(0))
    assert sorted(visits) == [("body",), ("head",), ("neck",), ("stem",)]


def test_where_nothing_is_open_nothing_is_visited() -> None:
    space = ToyCell()
    strategy = FixedAlpha(space)
    assert Perturbation(space, strategy, random_judge(space), interval=5, seed=0).total_epochs == 15
    for name in space.choices():
        strategy.region = strategy.region.decide(name, 1)
    selection = Perturbation(space, strategy, random_judge(space), seed=0)
    assert selection.total_epochs == 0
    assert dict(selection.run(no_tuning)) == {"edge_0": "skip", "edge_1": "skip", "edge_2": "skip", "node": (0, 2)}


class Prefers:
    """A judge for whom only the `favourites` matter: of each choice one option, or inputs where edges are kept."""

    def __init__(self, space: SearchSpace, favourites: dict[str, set[int]]) -> None:
        self._choices = space.choices()
        self._favourites = favourites

    def __call__(self, candidates: Sequence[Gates]) -> list[Evaluation]:
        return [self._judge(gates) for gates in candidates]

    def _judge(self, gates: Gates) -> Evaluation:
        missed = 0
        for name, favourites in self._favourites.items():
            gate, choice = gates[name], self._choices[name]
            active = frozenset(gate.active if isinstance(gate, Mixture) else (gate,))
            present = choice.inputs(tuple(active)) if isinstance(choice, InputChoice) and choice.edges else active
            missed += len(favourites - present)
        return Evaluation(torch.zeros(50).bool(), torch.full((50,), float(missed)))


def test_none_stays_an_explicit_none() -> None:
    """Also on an edge that is kept: no other operation takes its place, and no other edge."""
    space = ToyCell()
    favourites = {"edge_0": {0}, "edge_1": {0}, "edge_2": {2}, "node": {0, 1}}
    chosen = Perturbation(space, FixedAlpha(space), Prefers(space, favourites), seed=0).run(no_tuning)
    assert dict(chosen) == {"edge_0": "none", "edge_1": "none", "edge_2": "conv", "node": (0, 1)}


def test_it_decides_on_every_kind_of_choice() -> None:
    space = ToySpace()
    favourites = {"layer": {1}, "inputs": {2}, "depth": {0}}
    chosen = Perturbation(space, SinglePathOneShot(space), Prefers(space, favourites), seed=0).run(no_tuning)
    assert dict(chosen) == {"layer": "pool", "inputs": (1, 2), "depth": 1}


def digits(count: int = 96) -> list[Batch]:
    images, _ = load("digits")
    x = images.pixels[:count].float() / 8 - 1
    return list(zip(x.split(48), images.labels[:count].split(48), strict=True))


SPACES: dict[str, Callable[[], SearchSpace]] = {
    "toy cell": ToyCell,
    "nasbench201": lambda: NasBench201((1, 8, 8), 10, channels=2, cells=1),
}


@pytest.fixture(params=SPACES)
def space(request: pytest.FixtureRequest) -> SearchSpace:
    torch.manual_seed(0)
    return SPACES[request.param]()


def test_from_supernet_to_architecture(space: SearchSpace) -> None:
    """Nothing of the supernet or its alphas changes, and in the end the supernet is the chosen network."""
    strategy = DARTS(space)
    before = {name: tensor.clone() for name, tensor in space.state_dict().items()}
    alphas = strategy.alphas.state_dict()
    open_in_tuning: list[int] = []
    selection = Perturbation(space, strategy, SupernetEvaluator(space, digits(), seed=0), interval=2, seed=0)
    chosen = selection.run(lambda epochs: open_in_tuning.append(len(strategy.region.undecided)))
    assert all(torch.equal(tensor, before[name]) for name, tensor in space.state_dict().items())
    assert all(torch.equal(alpha, alphas[name]) for name, alpha in strategy.alphas.state_dict().items())
    assert open_in_tuning == list(range(len(space.choices()) - 1, 0, -1))
    assert [decision.choice for decision in selection.decisions] == [name for (name,) in selection.visits]
    options = {name: choice.options for name, choice in space.choices().items()}
    assert {d.choice: options[d.choice][d.option] for d in selection.decisions} == dict(chosen)
    (x, _), _ = digits()
    with torch.no_grad():
        network = space.build(chosen, weights="inherited")
        assert torch.allclose(space(x, strategy.mean_gates()), network(x), atol=1e-6)


def test_a_killed_selection_goes_on(space: SearchSpace, tmp_path: Path) -> None:
    """Killed while it tunes before the third visit, it finds what it would have found, and tunes as long."""

    def new() -> tuple[FixedAlpha, Perturbation]:
        torch.manual_seed(0)
        strategy = FixedAlpha(space)
        evaluate = SupernetEvaluator(space, digits(), seed=0)
        return strategy, Perturbation(space, strategy, evaluate, interval=3, seed=5)

    _, whole = new()
    pauses: list[int] = []
    expected = whole.run(pauses.append)

    strategy, killed = new()

    def kill(epochs: int) -> None:
        if killed.done == 2:
            raise KeyboardInterrupt

    def save() -> None:
        save_state(tmp_path / "state.pt", {"strategy": strategy.state_dict(), "selection": killed.state_dict()})

    with pytest.raises(KeyboardInterrupt):
        killed.run(kill, on_visit=save)
    state = load_state(tmp_path / "state.pt")
    strategy, resumed = new()
    strategy.load_state_dict(state["strategy"])
    resumed.load_state_dict(state["selection"])
    remaining: list[int] = []
    assert resumed.run(remaining.append) == expected
    assert remaining == pauses[1:]
    assert resumed.decisions == whole.decisions
    json.dumps(resumed.state_dict(), allow_nan=False)


def test_the_state_of_another_space_is_refused() -> None:
    cell, toy = ToyCell(), ToySpace()
    state = Perturbation(cell, FixedAlpha(cell), random_judge(cell), seed=0).state_dict()
    with pytest.raises(UserError, match=r"^checkpoint\.\w+"):
        Perturbation(toy, SinglePathOneShot(toy), random_judge(toy), seed=0).load_state_dict(state)


class Chain(SearchSpace):
    """Three edges in a row, each a convolution or noise: what one of them drops is lost."""

    def __init__(self) -> None:
        super().__init__()
        self.input_shape, self.num_classes = (1, 8, 8), 10
        self.stem = nn.Conv2d(1, 8, 3, padding=1)
        self.edges = nn.ModuleList(
            LayerChoice(f"edge_{i}", {"noise": Noise(stride=1), "conv": relu_conv_bn(8, 8, 3, stride=1, affine=False)})
            for i in range(3)
        )
        self.head = nn.Linear(8 * 16, 10)

    def forward(self, x: Tensor, gates: Gates) -> Tensor:
        x = self.stem(x)
        for edge in self.edges:
            x = edge(x, gates)
        return self.head(nn.functional.avg_pool2d(x, 2).flatten(1))


def test_trained_and_tuned_it_keeps_what_carries_the_signal() -> None:
    """Where alpha prefers noise on every edge, and noise is drawn afresh in each step."""
    torch.manual_seed(0)
    space = Chain()
    strategy = FixedAlpha(space)
    for alpha in strategy.alphas.parameters():
        alpha.data = torch.tensor([0.2, 0.0])
    images = digits(960)

    def train(epochs: int, lr: float) -> None:
        optimizer = torch.optim.SGD(space.parameters(), lr=lr, momentum=0.9)
        for _ in range(epochs):
            for x, y in images:
                loss = nn.functional.cross_entropy(space(x, strategy.mean_gates()), y)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()

    train(4, lr=0.1)
    assert set(argmax(space, strategy.preferences(), strategy.region).values()) == {"noise"}
    evaluate = SupernetEvaluator(space, images[:4], seed=0)
    selection = Perturbation(space, strategy, evaluate, interval=1, seed=0)
    assert set(selection.run(lambda epochs: train(epochs, lr=0.01)).values()) == {"conv"}
    assert {decision.comparisons[0].decided_by for decision in selection.decisions} == {"accuracy"}
