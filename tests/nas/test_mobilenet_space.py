from __future__ import annotations

import csv
import gzip
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from espalier.nas.architecture import Architecture
from espalier.nas.cost.count import CostCounter
from espalier.nas.gates import mixture
from espalier.nas.spaces.mobilenet import STRIDES, MobileNet, divisible, keep_last
from user_errors import user_error

K3E3, K3E6, K5E3, K5E6, K7E3, K7E6, ZERO = "k3e3", "k3e6", "k5e3", "k5e6", "k7e3", "k7e6", "zero"
MOBILE = (
    *(K5E3, K3E3, ZERO, ZERO),
    *(K7E3, K3E3, K5E3, K5E3),
    *(K7E6, K5E3, K5E3, K5E3),
    *(K5E6, K5E3, K5E3, K5E3),
    *(K7E6, K7E6, K7E3, K7E3),
    K7E6,
)
"""ProxylessNAS (Mobile), the network that the paper draws."""


def all_blocks(option: str, count: int = 21) -> Architecture:
    return Architecture({f"block_{i + 1}": option for i in range(count)})


@pytest.fixture(scope="module")
def space() -> MobileNet:
    with torch.device("meta"):
        return MobileNet()


@pytest.fixture(scope="module")
def counter(space: MobileNet) -> CostCounter:
    return CostCounter(space)


@pytest.fixture
def small() -> MobileNet:
    torch.manual_seed(0)
    return MobileNet((1, 8, 8), 10, width=0.25, cells=(1, 2, 1, 1, 1, 1), reductions=1)


def test_the_supernet_is_the_reference_s(space: MobileNet) -> None:
    """16,034,168 parameters; 6 x 6 + 15 x 7 = 141 options, 6^6 7^15 architectures."""
    assert sum(parameter.numel() for parameter in space.parameters()) == 16_034_168
    options = [choice.options for choice in space.choices().values()]
    assert sum(map(len, options)) == 141
    assert sum("zero" in names for names in options) == 15
    assert all(names[:6] == (K3E3, K3E6, K5E3, K5E6, K7E3, K7E6) for names in options)
    assert space.size == 6**6 * 7**15


@pytest.mark.parametrize(
    ("option", "million_macs", "params"),
    [
        (K3E3, 257.422, 3_191_928),
        (K3E6, 472.621, 4_684_776),
        (K5E3, 284.216, 3_275_640),
        (K5E6, 526.209, 4_852_200),
        (K7E3, 324.407, 3_401_208),
        (K7E6, 606.591, 5_103_336),
    ],
)
def test_networks_of_one_operation(counter: CostCounter, option: str, million_macs: float, params: int) -> None:
    cost = counter(all_blocks(option))
    assert cost.params == params
    assert cost.macs / 1e6 == pytest.approx(million_macs, abs=2e-3)


def test_skipped_blocks_cost_nothing(counter: CostCounter, space: MobileNet) -> None:
    shallow = Architecture(
        {name: "zero" if "zero" in choice.options else K3E3 for name, choice in space.choices().items()}
    )
    network = space.build(shallow)
    depthwise = [m for m in network.modules() if isinstance(m, nn.Conv2d) and m.groups == m.in_channels]
    assert len(depthwise) == 1 + 6
    assert counter(shallow).params < counter(all_blocks(K3E3)).params


def test_shapes_and_places_are_those_of_the_latency_table(space: MobileNet, shared_data: Path) -> None:
    """The rows `expanded_conv-input:HxWxC-output:HxWxC-expand:E-kernel:K-stride:S-idskip:I` are our candidates."""
    with gzip.open(shared_data / "pixel1_proxyless_lut.csv.gz", "rt") as file:
        rows = {row["op"] for row in csv.DictReader(file) if row["op"].startswith("expanded_conv")}
    ours, size = set(), 112
    for block in space.blocks:
        out = size // block.stride
        shapes = f"input:{size}x{size}x{block.in_channels}-output:{out}x{out}x{block.out_channels}"
        place = f"stride:{block.stride}-idskip:{int(block.shortcut)}"
        ours |= {f"expanded_conv-{shapes}-expand:{e}-kernel:{k}-{place}" for k in (3, 5, 7) for e in (3, 6)}
        size = out
    assert ours == {row for row in rows if "expand:1" not in row}


def test_zero_is_the_identity(small: MobileNet) -> None:
    block = small.blocks[2]  # the second of its stage
    name = block.choice.name
    x = torch.randn(2, block.in_channels, 4, 4)
    zero = block.choice.options.index("zero")
    assert block(x, {name: zero}) is x
    weights = torch.rand(7)
    expected: Tensor = x + sum(weights[i] * block.choice.run(i, x) for i in range(6))
    assert torch.allclose(block(x, {name: mixture(weights)}), expected, atol=1e-5)


@pytest.mark.parametrize("training", [True, False])
def test_one_hot_mixtures_are_paths(small: MobileNet, training: bool) -> None:
    small.train(training)
    path = small.gates(small.sample(torch.Generator().manual_seed(1)))
    rows = {
        name: mixture(nn.functional.one_hot(torch.tensor(index), len(small.choices()[name].options)).float())
        for name, index in path.items()
    }
    x = torch.randn(3, 1, 8, 8)
    assert torch.allclose(small(x, rows), small(x, path), atol=1e-5)


def test_fresh_convolutions_have_he_s_variance_of_the_outputs() -> None:
    """N(0, 2 / (k^2 out_channels)), of depthwise convolutions too."""
    network = MobileNet((3, 8, 8)).build(all_blocks(K7E6))
    for module in network.modules():
        if isinstance(module, nn.Conv2d) and module.weight.numel() > 5000:
            expected = (2 / (module.kernel_size[0] ** 2 * module.out_channels)) ** 0.5
            assert module.weight.std().item() == pytest.approx(expected, rel=0.05)


@pytest.mark.parametrize(("reductions", "size"), [(5, 7), (3, 28), (2, 56), (0, 224)])
def test_reductions_leave_out_the_earliest(reductions: int, size: int) -> None:
    with torch.device("meta"):
        space = MobileNet(reductions=reductions, width=0.25, cells=(1, 1, 1, 1, 1, 1))
        last = space.stem(torch.empty(1, 3, 224, 224))
        for block in space.blocks:
            last = block.choice.run(0, last if block is not space.blocks[0] else space.first(last))
    assert last.shape[-2:] == (size, size)


def test_the_strides_that_are_kept() -> None:
    assert keep_last(STRIDES, 5) == (2, 2, 2, 2, 1, 2, 1)
    assert keep_last(STRIDES, 2) == (1, 1, 1, 2, 1, 2, 1)
    assert keep_last(STRIDES, 0) == (1,) * 7
    with user_error("space.reductions", "out_of_range", says="5"):
        MobileNet(reductions=6)


@pytest.mark.parametrize("shape", [(1, 8, 8), (1, 28, 28), (3, 31, 33)])
def test_images_of_any_size(shape: tuple[int, int, int]) -> None:
    space = MobileNet(shape, 7, width=0.25, cells=(1, 1, 1, 1, 1, 1), reductions=3)
    architecture = space.sample(torch.Generator().manual_seed(0))
    assert space(torch.randn(2, *shape), space.gates(architecture)).shape == (2, 7)


@pytest.mark.parametrize(
    ("channels", "rounded"), [(1, 8), (24, 24), (12, 16), (11.2, 16), (20, 24), (42, 40), (33.6, 32)]
)
def test_channels_are_multiples_of_eight(channels: float, rounded: int) -> None:
    assert divisible(channels) == rounded


def test_width_narrows_all_but_the_last_convolution() -> None:
    with torch.device("meta"):
        half, wide = MobileNet(width=0.5), MobileNet(width=1.4)
    assert (half.stem[0].out_channels, half.blocks[20].out_channels, half.head[2].in_features) == (16, 160, 1280)
    assert (wide.stem[0].out_channels, wide.blocks[20].out_channels, wide.head[2].in_features) == (48, 448, 1792)


def test_the_published_mobile_network() -> None:
    """320M multiply-accumulates and 4.1M parameters, with the widths of the network that was trained at last."""
    with torch.device("meta"):
        space = MobileNet(widths=(32, 16, 32, 40, 80, 96, 192, 320, 1280))
    architecture = Architecture({f"block_{i + 1}": option for i, option in enumerate(MOBILE)})
    cost = CostCounter(space)(architecture)
    assert (cost.params, round(cost.macs / 1e6)) == (4_080_512, 320)
