from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import torch

from espalier.nas.architecture import Architecture
from espalier.nas.choices import LayerChoice
from espalier.nas.space import SearchSpace
from espalier.nas.spaces.nasbench201 import NasBench201
from espalier.nas.task import Batch, Classification
from espalier.nas.training import TrainSettings
from espalier.supernets.fairnas import FairNAS
from espalier.supernets.trainer import SupernetTraining
from toy_space import ToySpace
from user_errors import user_error

TASK = Classification(10)


def nasbench201() -> NasBench201:
    torch.manual_seed(0)
    return NasBench201((1, 8, 8), channels=2, cells=1)


def dealt(strategy: FairNAS, steps: int, seed: int = 0) -> Iterator[list[dict[str, int]]]:
    generator = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        yield [dict(path) for path in strategy.sample_paths(generator)]  # type: ignore[arg-type]


def test_p15_each_step_uses_every_option_once() -> None:
    """Over 50 steps each operation of each edge is used 50 times, by nearly 250 different paths."""
    space = nasbench201()
    used: Counter[tuple[str, int]] = Counter()
    paths = set()
    for step in dealt(FairNAS(space), 50):
        assert len(step) == 5
        for name in space.choices():
            assert sorted(path[name] for path in step) == [0, 1, 2, 3, 4]
        used.update(item for path in step for item in path.items())
        paths.update(tuple(path.values()) for path in step)
    assert set(used.values()) == {50}
    assert len(paths) >= 245  # 250 draws of 15,625, two in a thousand of which meet


def test_pairs_of_options_are_uniform() -> None:
    pairs = Counter(
        (path["edge_1_0"], path["edge_3_2"]) for step in dealt(FairNAS(nasbench201()), 2_000) for path in step
    )
    assert len(pairs) == 25
    assert sum((count - 400) ** 2 / 400 for count in pairs.values()) < 51.2  # the 99.9 % point, 24 degrees of freedom


def test_a_choice_with_fewer_options_is_dealt_fairly_over_steps() -> None:
    """Three paths a step: of two depths one is used twice, and the other one in the next step."""
    strategy = FairNAS(ToySpace())
    used: Counter[int] = Counter()
    for index, step in enumerate(dealt(strategy, 40), start=1):
        assert len(step) == 3
        used.update(path["depth"] for path in step)
        assert abs(used[0] - used[1]) == index % 2
        assert sorted(path["layer"] for path in step) == [0, 1, 2]


def test_a_region_is_dealt_fairly() -> None:
    strategy = FairNAS(nasbench201())
    strategy.region = strategy.region.decide("edge_1_0", 3).restrict("edge_2_0", (0, 2))
    for name in strategy.region:
        if name not in ("edge_1_0", "edge_2_0"):
            strategy.region = strategy.region.restrict(name, (1, 2, 3))
    used: Counter[int] = Counter()
    for index, step in enumerate(dealt(strategy, 10), start=1):
        assert [path["edge_1_0"] for path in step] == [3, 3, 3]
        used.update(path["edge_2_0"] for path in step)
        assert abs(used[0] - used[2]) == index % 2 and used.keys() <= {0, 2}


def test_what_is_left_of_a_permutation_is_part_of_the_state() -> None:
    whole, resumed = FairNAS(ToySpace()), FairNAS(ToySpace())
    list(dealt(whole, 3))
    resumed.load_state_dict(whole.state_dict())
    assert list(dealt(resumed, 3, seed=1)) == list(dealt(whole, 3, seed=1))


class Deep(ToySpace):
    """`none` must be followed by one block."""

    def contains(self, architecture: Architecture) -> bool:
        return (architecture["layer"], architecture["depth"]) != ("none", 2)


def test_every_path_keeps_the_constraints_of_the_space() -> None:
    space = Deep()
    strategy = FairNAS(space)
    for step in dealt(strategy, 40):
        assert all(space.contains(space.architecture(path)) for path in step)
        assert sorted(path["layer"] for path in step) == [0, 1, 2]
    strategy.region = strategy.region.decide("layer", 2).decide("depth", 1)
    with user_error("supernet.strategy", "infeasible", says="1,000"):
        strategy.sample_paths(torch.Generator())


def training(space: SearchSpace, strategy: FairNAS, batch: Batch) -> SupernetTraining:
    settings = TrainSettings(epochs=1, clip_grad_norm=None)
    return SupernetTraining(space, strategy, settings, [batch], task=TASK, generator=torch.Generator(), seed=0)


def test_a_step_uses_the_sum_of_the_gradients_of_its_paths() -> None:
    space = nasbench201()
    x, y = torch.randn(16, 1, 8, 8), torch.randint(10, (16,))
    strategy = FairNAS(space)
    seen = {}

    def keep(paths: object) -> None:
        seen.update({name: p.grad.clone() for name, p in space.named_parameters() if p.grad is not None})

    strategy.before_update = keep  # type: ignore[method-assign]
    before = {name: p.detach().clone() for name, p in space.named_parameters()}
    loss = training(space, strategy, (x, y)).step(x, y)
    space.zero_grad(set_to_none=True)
    with torch.no_grad():
        for name, p in space.named_parameters():
            p.copy_(before[name])
    losses = [TASK.loss(space(x, path), y) for path in next(dealt(FairNAS(space), 1))]
    torch.stack(losses).sum().backward()
    torch.testing.assert_close(loss, torch.stack(losses).mean().detach())
    operations = {id(p) for module in space.modules() if isinstance(module, LayerChoice) for p in module.parameters()}
    for name, p in space.named_parameters():
        assert p.grad is not None or id(p) in operations  # cut off by `none` on all paths
        if p.grad is not None:
            torch.testing.assert_close(seen[name], p.grad, rtol=1e-4, atol=1e-6)
