from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor, nn

from espalier.nas.region import Region
from espalier.nas.space import SearchSpace
from espalier.nas.spaces.darts import Darts
from espalier.nas.spaces.macro import Macro
from espalier.nas.spaces.nasbench201 import NasBench201
from espalier.nas.task import Classification
from espalier.predictors.inherited import InheritedAccuracy
from toy_elastic import ToyElastic

TASK = Classification(10)


class Fixed:
    def __init__(self, count: int, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.x = 3 + 2 * torch.randn(count, 1, 8, 8, generator=generator)
        self.y = torch.randint(10, (count,), generator=generator)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        yield from zip(self.x.split(32), self.y.split(32), strict=True)


@pytest.fixture
def supernet() -> NasBench201:
    torch.manual_seed(0)
    return NasBench201((1, 8, 8), channels=4, cells=1)


SPACES: dict[str, Callable[[], SearchSpace]] = {
    "nasbench201": lambda: NasBench201((1, 8, 8), channels=4, cells=1),
    "macro": lambda: Macro((1, 8, 8), 10, widths=(8, 8, 16, 16, 24), reductions=1),
    "elastic": ToyElastic,  # cut out: its norms keep the statistics of a path only then
    "darts with noise": lambda: Darts((1, 8, 8), 10, variant="S4", channels=2, cells=3),
}


def make(supernet: SearchSpace) -> InheritedAccuracy:
    parts = [(Region.whole(supernet), supernet)]
    return InheritedAccuracy(parts, calibration=Fixed(96, 1), selection=Fixed(64, 2), task=TASK, images=64)


def test_it_is_the_accuracy_with_recalibrated_statistics(supernet: NasBench201) -> None:
    architecture = supernet.sample(torch.Generator().manual_seed(3))
    network = supernet.build(architecture, weights="inherited")
    stem = network.get_submodule("stem.1")
    assert isinstance(stem, nn.BatchNorm2d)
    images = torch.cat([x for x, _ in Fixed(96, 1)])
    pre = network.get_submodule("stem.0")(images)
    # By hand for the first norm: the average over batches of the batch mean.
    expected = torch.stack([batch.mean((0, 2, 3)) for batch in pre.split(32)]).mean(0)
    torch.optim.swa_utils.update_bn(Fixed(96, 1), network)
    assert torch.allclose(stem.running_mean, expected, atol=1e-5)
    assert make(supernet)(architecture).value == TASK.evaluate(network, Fixed(64, 2))


def test_the_supernet_is_untouched_and_the_order_does_not_matter(supernet: NasBench201) -> None:
    generator = torch.Generator().manual_seed(3)
    architectures = [supernet.sample(generator) for _ in range(4)]
    before = {name: tensor.clone() for name, tensor in supernet.state_dict().items()}
    predictor = make(supernet)
    forth = [predictor(a).value for a in architectures]
    back = [predictor(a).value for a in reversed(architectures)]
    assert forth == back[::-1]
    assert all(torch.equal(tensor, before[name]) for name, tensor in supernet.state_dict().items())
    estimate = predictor(architectures[0])
    assert (estimate.name, estimate.unit, estimate.higher_is_better) == ("inherited", "accuracy", True)
    assert estimate.provenance == {"images": 64}


def test_recalibration_matters(supernet: NasBench201) -> None:
    """Without it the norms keep the statistics 0 and 1 of initialisation, and the outputs differ."""
    architecture = supernet.sample(torch.Generator().manual_seed(3))
    network = supernet.build(architecture, weights="inherited").eval()
    x = Fixed(8, 2).x
    before = network(x)
    torch.optim.swa_utils.update_bn(Fixed(96, 1), network)
    assert not torch.allclose(network(x), before, atol=1e-2)


@pytest.mark.parametrize("name", SPACES)
def test_it_is_the_accuracy_of_the_built_network(name: str) -> None:
    """Bit by bit: one path of the supernet after the other, each with statistics that `update_bn` gives its network."""
    torch.manual_seed(0)
    supernet = SPACES[name]()
    predictor = make(supernet)
    logits: list[Tensor] = []

    class Recorder(Classification):
        def evaluate(self, model: nn.Module, *_: object, **__: object) -> float:
            logits.append(model.eval()(Fixed(32, 2).x).detach())
            return 0.0

    predictor._task = Recorder(10)
    generator = torch.Generator().manual_seed(5)
    for architecture in [supernet.sample(generator) for _ in range(4)]:
        predictor(architecture)
        network = supernet.build(architecture, weights="inherited")
        with torch.random.fork_rng():
            torch.manual_seed(0)
            torch.optim.swa_utils.update_bn(Fixed(96, 1), network)
            expected = network.eval()(Fixed(32, 2).x)
        torch.testing.assert_close(logits[-1], expected, rtol=1e-4, atol=1e-5)
    assert not torch.equal(logits[0], logits[1])


def test_it_follows_the_supernet_s_weights(supernet: NasBench201) -> None:
    """A supernet that is trained further is judged as it is, and left as it was, in its mode."""
    architecture = supernet.sample(torch.Generator().manual_seed(3))
    predictor = make(supernet)
    before = predictor(architecture).value
    with torch.no_grad():
        for parameter in supernet.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(parameter.numel())))
    after = predictor(architecture).value
    assert after == make(supernet)(architecture).value != before
    assert all(module.training for module in supernet.modules())
    assert all(parameter.grad is None for parameter in supernet.parameters())
    assert not any(module._forward_pre_hooks for module in supernet.modules())


def test_the_network_alone_has_statistics_of_its_changed_weights(supernet: NasBench201) -> None:
    architecture = supernet.sample(torch.Generator().manual_seed(3))
    predictor = make(supernet)
    network = predictor.network(architecture)
    assert TASK.evaluate(network, Fixed(64, 2)) == predictor(architecture).value

    @torch.no_grad()
    def doubled(network: nn.Module) -> None:
        network.get_parameter("stem.0.weight").mul_(2)

    other = predictor.network(architecture, change=doubled)
    mean, twice = (each.get_buffer("stem.1.running_mean") for each in (network, other))
    torch.testing.assert_close(twice, 2 * mean)
    assert not torch.equal(supernet.get_parameter("stem.0.weight"), other.get_parameter("stem.0.weight"))
