"""PA&DA: what is drawn, what importance is made of, and that nothing of it is left at tau = 0."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from espalier.nas.choices import LayerChoice
from espalier.nas.data import Augment, Batches, load
from espalier.nas.device import place
from espalier.nas.space import SearchSpace
from espalier.nas.spaces.darts import Darts
from espalier.nas.spaces.mobilenet import MobileNet
from espalier.nas.spaces.nasbench201 import NasBench201
from espalier.nas.task import Classification
from espalier.nas.training import TrainSettings
from espalier.supernets.option_importance import OptionImportance, Statistic, running_half
from espalier.supernets.pada import PADA
from espalier.supernets.pada_options import MODES
from espalier.supernets.spos import SinglePathOneShot
from espalier.supernets.strategy import Strategy
from espalier.supernets.trainer import SupernetTraining, train_supernet
from toy_space import ToyCell, ToySpace
from user_errors import user_error

TASK = Classification(10)
NONE, SKIP, CONV1, CONV3, POOL = range(5)
REFERENCE = Statistic("option", "none", "sum", "half", carry=False, parameter_free="zero")
CORRECTED = Statistic("choice", "size", "mean", "mean", carry=True, parameter_free="uniform")


def nasbench201(**options: Any) -> NasBench201:
    torch.manual_seed(0)
    return NasBench201((1, 8, 8), channels=4, cells=1, **options)


def training(
    space: SearchSpace, strategy: Strategy, *, epochs: int = 3, smoothing: float = 0.0, **augment: float
) -> SupernetTraining:
    images, _ = load("digits")
    generator = torch.Generator().manual_seed(1)
    batches = Batches(
        images.subset(torch.arange(160)),
        32,
        mean=(0.3,),
        std=(0.4,),
        shuffle=True,
        augment=Augment(crop_padding=1, **augment),  # type: ignore[arg-type]
        generator=generator,
        drop_last=True,
    )
    settings = TrainSettings(epochs=epochs, lr=0.05)
    return SupernetTraining(
        space, strategy, settings, batches, task=Classification(10, smoothing), generator=generator, seed=2
    )


@pytest.mark.parametrize(("epoch", "expected"), [(0, 0.0), (125, 0.5), (249, 0.996)])
def test_p10_tau_grows_linearly(epoch: int, expected: float) -> None:
    """tau = e / E; the authors' code draws with that of the epoch before."""
    reference, ahead = PADA(nasbench201(), mode="reference"), PADA(nasbench201(), mode="reference", tau_lag=0)
    for strategy, at in ((reference, epoch + 1), (ahead, epoch)):
        strategy.begin_epoch(at, 250)
        assert strategy.sampler is not None and strategy.sampler.tau == pytest.approx(expected)
    corrected = PADA(nasbench201())
    corrected.begin_epoch(epoch, 250)
    assert corrected.sampler is not None and corrected.sampler.tau == pytest.approx(0.8 * expected)


def test_p9_observations_are_averaged_by_halves() -> None:
    """G = 0; observations 2 and 4 make 1.0, then 2.5; a zero changes nothing."""
    assert running_half(torch.tensor([[2.0, 0.0]])).tolist() == [1.0, 0.0]
    assert running_half(torch.tensor([[2.0, 0.0], [0.0, 0.0], [4.0, 0.0]])).tolist() == [2.5, 0.0]


def set_gradients(space: SearchSpace, gates: dict[str, int], norm: float) -> None:
    """Give every weight of the operations of a path a gradient of this norm, and no other one."""
    space.zero_grad(set_to_none=True)
    for module in space.modules():
        if isinstance(module, LayerChoice):
            option = str(module.options[gates[module.name]])
            for p in module.candidates[option].parameters() if option in module.candidates else ():
                p.grad = torch.full_like(p, norm / math.sqrt(p.numel()))


def test_p9_epoch_means() -> None:
    """Observations 2 and 4 make 3.0 as a mean, whatever other options were drawn; by running_half 2.5."""
    space = nasbench201()
    for average, expected in (("mean", 3.0), ("half", 2.5)):
        statistic = Statistic("option", "none", "mean", average, carry=True, parameter_free="zero")
        importance = OptionImportance(space, statistic)
        for option, norm in ((CONV3, 2.0), (CONV1, 7.0), (CONV3, 4.0)):
            path = dict.fromkeys(space.choices(), option)
            set_gradients(space, path, norm)
            importance.observe(path)
        importance.end_epoch()
        assert importance.values[CONV3].item() == pytest.approx(expected, rel=1e-6)


def test_p9_probabilities_of_known_importances() -> None:
    """G = (0, 0, 2, 3, 0), tau = .5: (.1, .1, .3, .4, .1)."""
    importance = OptionImportance(nasbench201(), REFERENCE)
    importance.load_state_dict({"values": torch.tensor([0, 0, 2, 3, 0], dtype=torch.float64)})
    p = importance.distribution("edge_1_0", range(5), 0.5)
    assert p == pytest.approx([0.1, 0.1, 0.3, 0.4, 0.1])
    assert importance.distribution("edge_1_0", (SKIP, CONV1, CONV3), 0.5) == pytest.approx([1 / 6, 11 / 30, 14 / 30])
    assert importance.distribution("edge_1_0", range(5), 0.0) is None
    assert importance.distribution("edge_1_0", (NONE, SKIP, POOL), 0.5) is None


def test_options_without_weights_have_the_uniform_share() -> None:
    """tau / K + (1 - tau) / K = 1 / K; options that were never drawn count as the mean of the known ones."""
    importance = OptionImportance(nasbench201(), CORRECTED)
    values = torch.full((30,), torch.nan, dtype=torch.float64)
    values[[CONV1, CONV3]] = torch.tensor([1.0, 3.0], dtype=torch.float64)
    values[5 + CONV3] = 3.0
    importance.load_state_dict({"values": values})
    first, second = ["edge_1_0", "edge_2_0"]
    assert importance.distribution(first, range(5), 1.0) == pytest.approx([0.2, 0.2, 0.1, 0.3, 0.2])
    assert importance.distribution(second, range(5), 1.0) == pytest.approx([0.2] * 5)
    assert importance.distribution("edge_2_1", range(5), 1.0) is None


@pytest.mark.parametrize("cells", [1, 2])
def test_the_statistic_by_an_explicit_loop(cells: int) -> None:
    """The reference's s_o = sum over cells and edges of ||dL/dW|| / (edges with o); the mean of ||dL/dW|| / sqrt(n)."""
    torch.manual_seed(0)
    space = NasBench201((1, 8, 8), channels=4, cells=cells)
    gates = dict(zip(space.choices(), (CONV3, CONV1, CONV3, SKIP, CONV3, NONE), strict=True))
    TASK.loss(space(torch.randn(8, 1, 8, 8), gates), torch.randint(10, (8,))).backward()
    norms: dict[str, list[Tensor]] = {name: [] for name in gates}
    scaled: dict[str, list[Tensor]] = {name: [] for name in gates}
    for module in space.modules():
        if isinstance(module, LayerChoice) and gates[module.name] in (CONV1, CONV3):
            weight = module.candidates[str(module.options[gates[module.name]])][1].weight  # type: ignore[index,union-attr]
            norm = torch.zeros(()) if weight.grad is None else weight.grad.norm()
            norms[module.name].append(norm)
            scaled[module.name].append(norm / weight.numel() ** 0.5)
    reference, corrected = OptionImportance(space, REFERENCE), OptionImportance(space, CORRECTED)
    for importance in (reference, corrected):
        importance.observe(gates)
        importance.end_epoch()
    s3 = torch.stack([n for name, gate in gates.items() if gate == CONV3 for n in norms[name]]).sum() / 3
    s1 = torch.stack(norms["edge_2_0"]).sum()
    expected = torch.tensor([0, 0, s1 / 2, s3 / 2, 0], dtype=torch.float64)
    torch.testing.assert_close(reference.values, expected, rtol=1e-6, atol=0)
    means = {name: torch.stack(found).mean().item() for name, found in scaled.items() if found}
    got = corrected.values.reshape(6, 5)
    for row, name in zip(got, gates, strict=True):
        if name in means:
            assert row[gates[name]].item() == pytest.approx(means[name], rel=1e-6)
        assert int(row.isnan().sum()) == (4 if name in means else 5)


def test_p14_operations_without_weights_get_nothing_from_gradients() -> None:
    """In the mode of the authors' code only 1x1 and 3x3 convolutions have any importance."""
    space = nasbench201()
    strategy = PADA(space, mode="reference")
    train_supernet(training(space, strategy))
    assert strategy.importance is not None
    values = strategy.importance.values
    assert (values[[NONE, SKIP, POOL]].nan_to_num(0) == 0).all()
    assert (values[[CONV1, CONV3]] > 0).all()


def test_p14_biases_before_a_batch_norm_have_no_gradient() -> None:
    """Which is why the statistic leaves them out, as spaces here leave out the biases."""
    torch.manual_seed(0)
    layer = nn.Sequential(
        nn.Conv2d(4, 8, 3), nn.BatchNorm2d(8, affine=False), nn.ReLU(), nn.Flatten(), nn.LazyLinear(10)
    )
    TASK.loss(layer(torch.randn(16, 4, 6, 6)), torch.randint(10, (16,))).backward()
    weight, bias = layer[0].weight.grad, layer[0].bias.grad
    assert isinstance(weight, Tensor) and isinstance(bias, Tensor)
    assert bias.norm() < 1e-5 * weight.norm()


def test_paths_follow_their_distribution() -> None:
    """Chi-square of pairs of edges, below its 99.9 % point with 24 degrees of freedom."""
    space = nasbench201()
    strategy = PADA(space, data=False, tau_paths=1.0)
    assert strategy.importance is not None
    values = torch.rand(30, generator=torch.Generator().manual_seed(0)).double()
    strategy.load_state_dict({**strategy.state_dict(), "importance": {"values": values}, "progress": 0.9})
    p = strategy.distributions()
    generator = torch.Generator().manual_seed(1)
    draws = [strategy.weight_gates(generator) for _ in range(10_000)]
    pairs = Counter((draw["edge_1_0"], draw["edge_3_2"]) for draw in draws)
    expected = {
        (a, b): 1e4 * float(p["edge_1_0"][a] * p["edge_3_2"][b]) for a, b in itertools.product(range(5), repeat=2)
    }
    assert sum((pairs[key] - e) ** 2 / e for key, e in expected.items()) < 51.2


@pytest.mark.parametrize("unsampled", ["freeze", "decay"])
def test_p16_weights_off_the_path(unsampled: Any) -> None:
    """Frozen they stay to the bit; with decay they move by momentum and by their own size."""
    space = nasbench201()
    strategy = PADA(space, data=False, unsampled=unsampled)
    run = training(space, strategy)
    x, y = next(iter(run.batches))
    gates = dict.fromkeys(space.choices(), CONV3)
    strategy.sample_paths = lambda generator: [gates]  # type: ignore[method-assign]
    run.step(x, y)
    gates.update(dict.fromkeys(gates, CONV1))
    before = {name: p.detach().clone() for name, p in space.named_parameters()}
    run.step(x, y)
    moved = {name for name, p in space.named_parameters() if not torch.equal(p, before[name])}
    unsampled_weights = {name for name in before if "nor_conv_3x3" in name}
    assert unsampled_weights
    assert moved == (before.keys() if unsampled == "decay" else before.keys() - unsampled_weights)


@pytest.mark.parametrize("mode", ["corrected", "reference"])
def test_p17_at_tau_0_it_is_spos_to_the_bit(mode: Any) -> None:
    def losses(make: Callable[[SearchSpace], Strategy]) -> tuple[list[float], list[Tensor]]:
        space = nasbench201()
        rows = train_supernet(training(space, make(space), epochs=3, mixup=0.2, smoothing=0.1))
        return [row["loss"] for row in rows], list(space.state_dict().values())

    options: dict[str, Any] = {"tau_paths": 0, "tau_data": 0, "draws": "systematic", "unsampled": "freeze"}
    expected = losses(SinglePathOneShot)
    got = losses(lambda space: PADA(space, mode=mode, **options))
    assert got[0] == expected[0]
    assert all(torch.equal(a, b) for a, b in zip(got[1], expected[1], strict=True))
    different = losses(lambda space: PADA(space, mode=mode))
    assert different[0][0] == expected[0][0] or mode == "reference"  # which decays weights off the path
    assert different[0][-1] != expected[0][-1]


@pytest.mark.parametrize("options", [{"mode": "reference"}, {}, {"paths": False}, {"data": False}], ids=str)
def test_resumed_it_gives_the_same_losses_to_the_bit(options: Any, tmp_path: Path) -> None:
    whole = train_supernet(training(space := nasbench201(), PADA(space, **options), epochs=4))

    class Killed(Exception):
        pass

    def die(row: dict[str, float]) -> None:
        if row["epoch"] == 3:
            raise Killed

    with pytest.raises(Killed):
        first = training(space := nasbench201(), PADA(space, **options), epochs=4)
        train_supernet(first, checkpoint=tmp_path / "c.pt", on_epoch=die)
    second = training(space := nasbench201(), PADA(space, **options), epochs=4)
    rows = train_supernet(second, checkpoint=tmp_path / "c.pt")

    def without_times(rows: list[dict[str, float]]) -> list[dict[str, float]]:
        return [{key: value for key, value in row.items() if key != "seconds"} for row in rows]

    assert without_times(rows) == without_times(whole)


def test_an_epoch_says_how_uneven_its_draws_were() -> None:
    rows = train_supernet(training(space := nasbench201(), PADA(space, draws="multinomial"), epochs=5))
    assert rows[0]["entropy"] == pytest.approx(1)
    assert rows[0]["unique_images"] == rows[0]["effective_images"] == 1
    assert 0.8 < rows[-1]["entropy"] < 1
    assert 0.3 < rows[-1]["effective_images"] < 1
    assert 0.5 < rows[-1]["unique_images"] < 1


def test_losses_are_weighted_by_1_over_n_q() -> None:
    """The mean of w_i L_i over the batch, not over the sum of weights; not at all in the mode of the authors' code."""
    z, y = torch.randn(32, 10), torch.randint(10, (32,))
    scores = torch.rand(160).double()
    for mode in MODES:
        strategy = PADA(nasbench201(), mode=mode)
        assert strategy.sampler is not None
        strategy.sampler.load_state_dict({"scores": scores})
        strategy.begin_epoch(3, 5)
        order = strategy.sampler.draw(160, 160, torch.Generator().manual_seed(0))
        tau = {"corrected": 0.8 * 3 / 5, "reference": 2 / 5}[mode]
        w = 1 / (160 * (tau * scores / scores.sum() + (1 - tau) / 160))[order[:32]]
        w = w if mode == "corrected" else torch.ones(32)
        expected = (w * TASK.losses(z, y)).sum() / 32
        torch.testing.assert_close(strategy.path_loss(TASK, z, y).double(), expected.double())


SPACES: dict[str, Callable[[], SearchSpace]] = {
    "darts": lambda: Darts((1, 8, 8), 10, channels=4, cells=3),
    "mobilenet": lambda: MobileNet((1, 8, 8), 10, width=0.1, cells=(2, 2, 1, 1, 1, 1), reductions=1),
    "affine": lambda: nasbench201(affine=True),
}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", SPACES)
def test_it_works_on_every_space_with_layer_choices(name: str, mode: Any) -> None:
    torch.manual_seed(0)
    space = SPACES[name]()
    place(space, torch.device("cpu"))
    strategy = PADA(space, mode=mode)
    train_supernet(training(space, strategy, epochs=2))
    strategy.begin_epoch(2, 2)
    p = strategy.distributions()
    layers = {n for n, choice in space.choices().items() if isinstance(choice, LayerChoice)}
    assert p.keys() <= layers and p
    for row in p.values():
        assert row.sum().item() == pytest.approx(1)
    assert any(row.max() > row.min() for row in p.values())


def test_choices_without_weights_of_their_own_stay_uniform() -> None:
    """Values and inputs: the statistic reads the weights of candidate modules, and these choices have none."""
    strategy = PADA(ToySpace(), mode="reference")
    values = torch.tensor([2.0, 0, 0], dtype=torch.float64)
    strategy.load_state_dict({**strategy.state_dict(), "importance": {"values": values}, "progress": 1.0})
    assert strategy.distributions().keys() == {"layer"}
    generator = torch.Generator().manual_seed(0)
    draws = [strategy.weight_gates(generator) for _ in range(3_000)]
    assert {draw["layer"] for draw in draws} == {0}
    for name, size in (("inputs", 3), ("depth", 2)):
        counts = Counter(draw[name] for draw in draws)
        assert sum((counts[i] - 3_000 / size) ** 2 / (3_000 / size) for i in range(size)) < 13.8  # 99.9 %, 2 degrees


def test_a_region_is_kept() -> None:
    space = nasbench201()
    strategy = PADA(space, tau_paths=1.0)
    values = torch.rand(30).double()
    strategy.load_state_dict({**strategy.state_dict(), "importance": {"values": values}, "progress": 0.9})
    strategy.weight_gates(torch.Generator())
    strategy.region = strategy.region.decide("edge_1_0", CONV1).restrict("edge_2_0", (SKIP, CONV1, CONV3))
    p = strategy.distributions()
    assert "edge_1_0" not in p
    assert p["edge_2_0"][[NONE, POOL]].tolist() == [0, 0]
    assert p["edge_2_0"][SKIP].item() == pytest.approx(1 / 3)
    draws = [strategy.weight_gates(torch.Generator().manual_seed(seed)) for seed in range(50)]
    assert {draw["edge_2_0"] for draw in draws} == {SKIP, CONV1, CONV3}
    assert {draw["edge_1_0"] for draw in draws} == {CONV1}


def test_every_departure_of_the_published_code_is_an_option() -> None:
    corrected, reference = MODES["corrected"], MODES["reference"]
    assert corrected.keys() == reference.keys()
    assert all(reference[key] != value for key, value in corrected.items())
    strategy = PADA(nasbench201(), **reference)
    assert {key: getattr(strategy, key) for key in reference} == reference


def test_an_option_that_is_given_comes_before_its_mode() -> None:
    strategy = PADA(nasbench201(), mode="reference", carry=True, tau_paths=0.0)
    assert (strategy.carry, strategy.tau_paths, strategy.scope) == (True, 0.0, "option")


@pytest.mark.parametrize(
    ("options", "key", "code", "says"),
    [
        ({"paths": False, "data": False}, "paths", "conflict", "spos"),
        ({"paths": False, "scope": "option"}, "scope", "conflict", "paths"),
        ({"data": False, "tau_data": 0.5}, "tau_data", "conflict", "data"),
        ({"tau_data": 1.0}, "tau_data", "out_of_range", "0.9"),
        ({"mode": "reference", "reweight": "data"}, "tau_data", "out_of_range", "1 / (1 - tau)"),
    ],
)
def test_wrong_options(options: dict[str, Any], key: str, code: Any, says: str) -> None:
    with user_error(f"supernet.strategy.{key}", code, says=says):
        PADA(nasbench201(), **options)


def test_paths_need_options_to_tell_apart() -> None:
    with user_error("supernet.strategy.paths", "unsupported"):
        PADA(ToyCell(), data=False)
    PADA(ToyCell(), data=False, parameter_free="zero")


def test_a_checkpoint_of_other_options_is_refused() -> None:
    state = PADA(nasbench201()).state_dict()
    with user_error("checkpoint.sampler", "mismatch"):
        PADA(nasbench201(), data=False).load_state_dict(state)
    with user_error("checkpoint.importance", "mismatch", says="30"):
        PADA(nasbench201(), scope="option").load_state_dict(state)


def test_batches_that_cannot_be_ordered_are_refused() -> None:
    class Fixed:
        def __len__(self) -> int:
            return 1

        def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
            yield torch.zeros(2, 1, 8, 8), torch.zeros(2, dtype=torch.int64)

    space = nasbench201()
    options: dict[str, Any] = {"task": TASK, "generator": torch.Generator(), "seed": 0}
    with pytest.raises(TypeError, match=r"pada.*Fixed"):
        SupernetTraining(space, PADA(space), TrainSettings(epochs=2), Fixed(), **options)
