from __future__ import annotations

import pytest
import torch
from torch import nn

from espalier.nas.architecture import Architecture
from espalier.nas.errors import Code
from espalier.nas.gates import Gate, Mixture, mixture
from espalier.nas.spaces.darts import Darts
from espalier.nas.spaces.darts_cell import KINDS, Cell, Variant, operation, operations
from user_errors import user_error

OPERATIONS = (
    "none",
    "max_pool_3x3",
    "avg_pool_3x3",
    "skip_connect",
    "sep_conv_3x3",
    "sep_conv_5x5",
    "dil_conv_3x3",
    "dil_conv_5x5",
)
SMALL = {"input_shape": (1, 8, 8), "channels": 2, "cells": 3}


def genotype(normal: str, reduce: str) -> str:
    """The papers' notation from `sep_conv_3x3~1 sep_conv_3x3~0 ...`."""
    cells = [[(edge.split("~")[0], int(edge.split("~")[1])) for edge in cell.split()] for cell in (normal, reduce)]
    return f"Genotype(normal={cells[0]}, normal_concat=range(2, 6), reduce={cells[1]}, reduce_concat=[2, 3, 4, 5])"


V1 = genotype(
    "sep_conv_3x3~1 sep_conv_3x3~0 skip_connect~0 sep_conv_3x3~1 skip_connect~0 sep_conv_3x3~1 "
    "sep_conv_3x3~0 skip_connect~2",
    "max_pool_3x3~0 max_pool_3x3~1 skip_connect~2 max_pool_3x3~0 max_pool_3x3~0 skip_connect~2 "
    "skip_connect~2 avg_pool_3x3~0",
)
V2 = genotype(
    "sep_conv_3x3~0 sep_conv_3x3~1 sep_conv_3x3~0 sep_conv_3x3~1 sep_conv_3x3~1 skip_connect~0 "
    "skip_connect~0 dil_conv_3x3~2",
    "max_pool_3x3~0 max_pool_3x3~1 skip_connect~2 max_pool_3x3~1 max_pool_3x3~0 skip_connect~2 "
    "skip_connect~2 max_pool_3x3~1",
)
PT = genotype(
    "sep_conv_3x3~0 sep_conv_3x3~1 sep_conv_5x5~0 dil_conv_3x3~1 skip_connect~0 skip_connect~2 "
    "skip_connect~0 max_pool_3x3~4",
    "sep_conv_3x3~0 avg_pool_3x3~1 dil_conv_5x5~1 dil_conv_3x3~2 avg_pool_3x3~0 max_pool_3x3~2 "
    "sep_conv_3x3~2 skip_connect~4",
)
BLANK_PT = genotype(
    "sep_conv_3x3~0 sep_conv_5x5~1 sep_conv_3x3~0 sep_conv_3x3~1 avg_pool_3x3~1 skip_connect~3 "
    "max_pool_3x3~0 avg_pool_3x3~2",
    "skip_connect~0 sep_conv_5x5~1 dil_conv_3x3~1 sep_conv_5x5~2 max_pool_3x3~0 skip_connect~3 "
    "max_pool_3x3~0 max_pool_3x3~2",
)


def params(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


@pytest.fixture(scope="module")
def final() -> Darts:
    """The size of the networks that the papers train at last."""
    with torch.device("meta"):
        return Darts(variant="S0", channels=36, cells=20)


@pytest.fixture
def small() -> Darts:
    torch.manual_seed(0)
    return Darts(**SMALL, variant="S0")


@pytest.mark.parametrize(
    ("variant", "count"),
    [("S0", 1_930_618), ("S1", 405_146), ("S2", 665_466), ("S3", 665_466), ("S4", 624_506), ("S5", 1_930_618)],
)
def test_the_supernets_have_the_references_parameters(variant: Variant, count: int) -> None:
    with torch.device("meta"):
        assert params(Darts(variant=variant)) == count


@pytest.mark.parametrize(
    ("cells", "count"),
    [
        pytest.param(V1, 3_169_414, id="DARTS, first order"),
        pytest.param(V2, 3_349_342, id="DARTS, second order"),
        pytest.param(PT, 2_851_246, id="DARTS with perturbation, seed 0"),
        pytest.param(BLANK_PT, 3_039_598, id="perturbation without alpha, seed 0"),
    ],
)
def test_published_networks_have_their_parameters(final: Darts, cells: str, count: int) -> None:
    """36 channels, 20 cells, without the auxiliary head."""
    assert params(final.build(final.parse(cells))) == count


def test_edges_offer_the_operations_of_the_papers_in_their_order() -> None:
    assert operations("S0", "normal", 5) == [list(OPERATIONS)] * 5
    assert operations("S5", "reduce", 2) == [list(OPERATIONS[1:])] * 2
    assert operations("S1", "normal", 2) == [["skip_connect", "dil_conv_3x3"], ["skip_connect", "dil_conv_5x5"]]
    assert operations("S1", "reduce", 4)[1] == ["max_pool_3x3", "sep_conv_3x3"]


@pytest.mark.parametrize(("variant", "options"), [("S0", 8), ("S1", 2), ("S2", 2), ("S3", 3), ("S4", 2), ("S5", 7)])
def test_the_number_of_architectures(variant: Variant, options: int) -> None:
    """An operation for each of 2 x 14 edges, and C(3, 2) C(4, 2) C(5, 2) = 180 pairs of kept edges for each kind."""
    assert Darts(**SMALL, variant=variant).size == (options**14 * 180) ** 2


@pytest.mark.parametrize("size", [8, 28, 32])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("name", [*OPERATIONS[1:], "noise"])
def test_operations_keep_or_halve_the_image(name: str, stride: int, size: int) -> None:
    layer = operation(name, 4, stride=stride)
    assert layer is not None
    assert layer(torch.randn(2, 4, size, size)).shape == (2, 4, size // stride, size // stride)


@pytest.mark.parametrize(
    ("cells", "reductions"), [(3, (1, 2)), (4, (1, 2)), (5, (1, 3)), (6, (2, 4)), (8, (2, 5)), (20, (6, 13))]
)
def test_cells_at_one_and_two_thirds_are_reductions(cells: int, reductions: tuple[int, ...]) -> None:
    with torch.device("meta"):
        stack = [cell for cell in Darts(variant="S2", channels=2, cells=cells).cells if isinstance(cell, Cell)]
    assert tuple(i for i, cell in enumerate(stack) if cell.stride == 2) == reductions


@pytest.mark.parametrize("size", [8, 12, 28])
def test_small_images(size: int) -> None:
    space = Darts((1, size, size), 7, channels=2, cells=4)
    architecture = space.sample(torch.Generator().manual_seed(0))
    assert space(torch.randn(2, 1, size, size), space.gates(architecture)).shape == (2, 7)


@pytest.mark.parametrize(
    ("wrong", "where", "code", "says"),
    [
        ({"input_shape": (3, 30, 32)}, "data.size", "unsupported", "30x32"),
        ({"cells": 2}, "space.cells", "out_of_range", "3"),
    ],
)
def test_what_two_reductions_do_not_fit_into_is_refused(
    wrong: dict[str, object], where: str, code: Code, says: str
) -> None:
    with user_error(where, code, says=says):
        Darts(**wrong)  # type: ignore[arg-type]


def test_one_hot_mixtures_are_paths(small: Darts) -> None:
    small.eval()
    architecture = small.sample(torch.Generator().manual_seed(3))
    path = small.gates(architecture)
    options = {name: len(choice.options) for name, choice in small.choices().items()}
    rows = {name: mixture(nn.functional.one_hot(torch.tensor(path[name]), n).float()) for name, n in options.items()}
    x = torch.randn(2, 1, 8, 8)
    assert torch.allclose(small(x, rows), small(x, path), atol=1e-6)


def test_edges_that_are_not_kept_are_not_run(small: Darts) -> None:
    """NaN in the weights of the normal edge 4 <- 3 is seen only where that edge can be kept."""
    path = small.gates(small.parse(V1).replace("normal_edge_4_3", "sep_conv_5x5"))  # node 4 keeps 0 and 1
    for parameter in small.cells[0].nodes[2].edges[3].parameters():
        parameter.data.fill_(torch.nan)
    subsets = small.choices()["normal_node_4"].options
    without = tuple(i for i, subset in enumerate(subsets) if 3 not in subset)

    def logits(gate: Gate) -> torch.Tensor:
        return small(torch.ones(2, 1, 8, 8), {**path, "normal_node_4": gate})

    assert logits(path["normal_node_4"]).isfinite().all()
    assert logits(Mixture(torch.ones(len(subsets)), without)).isfinite().all()
    assert logits(mixture(torch.ones(len(subsets)))).isnan().all()
    assert not any("sep_conv_5x5" in name for name, _ in small.build(small.architecture(path)).named_modules())


def test_batch_norms_of_a_built_network_are_affine_except_behind_pooling(small: Darts) -> None:
    network = small.build(small.parse(PT), weights="inherited")
    norms = {name: module for name, module in network.named_modules() if isinstance(module, nn.BatchNorm2d)}
    assert {"max_pool", "avg_pool"} == {name.split("candidates.")[1][:8] for name in norms if not norms[name].affine}
    assert any(norms[name].affine for name in norms if "preprocess" in name)
    assert not any(norm.affine for norm in small.cells.modules() if isinstance(norm, nn.BatchNorm2d))


def test_a_genotype_goes_in_and_out(small: Darts) -> None:
    architecture = small.parse(V1)
    assert architecture["normal_edge_5_2"] == "skip_connect"
    assert architecture["reduce_node_5"] == (0, 2)
    assert architecture["normal_edge_5_3"] == "none"  # not kept: the first operation
    text = small.format(architecture)
    assert text.startswith("Genotype(normal=[('sep_conv_3x3', 0), ('sep_conv_3x3', 1), ('skip_connect', 0), ")
    assert small.parse(text) == architecture
    assert small.format(architecture.replace("normal_edge_5_3", "sep_conv_3x3")).startswith("{")
    assert small.parse(V2) == small.parse(f"\n {V2.replace('range(2, 6)', '(2, 3, 4, 5)')}\n")


def test_a_kept_edge_with_none_stays_one_and_is_like_one_not_kept() -> None:
    """It becomes neither another operation nor another edge, whatever the other edges of the node are."""
    space = Darts(**SMALL, variant="S3")
    edges = "skip_connect~0 sep_conv_3x3~1 none~1 none~2 skip_connect~0 none~3 none~0 sep_conv_3x3~4"
    architecture = space.parse(genotype(edges, edges))
    assert space.format(architecture).count("('none', 2)") == 2
    assert space.isomorphism_class(architecture) == "|".join(
        2 * ["skip_connect~0+sep_conv_3x3~1", "", "skip_connect~0", "sep_conv_3x3~4"]
    )
    other = architecture.replace("normal_node_3", (0, 1)).replace("normal_edge_3_2", "sep_conv_3x3")
    assert other.id != architecture.id
    assert space.isomorphism_class(other) == space.isomorphism_class(architecture)
    assert ("normal 2", "normal 3", "none") in space.diagram(architecture)
    network = space.build(architecture, weights="inherited")
    assert not any("edge_3_" in str(node.target) for node in network.graph.nodes)
    x = torch.randn(2, 1, 8, 8)
    torch.testing.assert_close(network.eval()(x), space.eval()(x, space.gates(other)))


def test_the_diagram_has_the_kept_arrows_of_both_cells(small: Darts) -> None:
    arrows = small.diagram(small.parse(V2))
    assert ("normal 2", "normal 5", "dil_conv_3x3") in arrows
    assert ("reduce 1", "reduce 5", "max_pool_3x3") in arrows
    assert all(sum(target == f"{kind} {node}" for _, target, _ in arrows) == 2 for kind in KINDS for node in (2, 5))
    assert len(arrows) == 2 * (2 + 8 + 4)


def test_noise_is_fresh_and_knows_nothing_of_its_input() -> None:
    space = Darts(**SMALL, variant="S4").eval()
    noise = space.parse(genotype(*["noise~0 noise~1 " * 4] * 2))
    network, gates = space.build(noise, weights="inherited"), space.gates(noise)
    x, y = torch.randn(2, 2, 1, 8, 8)

    def seeded(model: nn.Module, *inputs: object) -> torch.Tensor:
        torch.manual_seed(1)
        return model(*inputs)

    assert torch.equal(seeded(space, x, gates), seeded(space, y, gates))
    torch.testing.assert_close(seeded(space, x, gates), seeded(network, x))
    assert not torch.equal(network(x), network(x))


@pytest.mark.parametrize(
    ("text", "where", "code", "says"),
    [
        ("", "architecture", "invalid", "Genotype"),
        ("sep_conv_3x3", "architecture", "invalid", "Genotype"),
        ("__import__('os').getcwd()", "architecture", "invalid", "Genotype"),
        (V1.replace("reduce_concat", "other"), "architecture", "invalid", "Genotype"),
        (V1.replace("range(2, 6)", "range(3, 6)"), "architecture.normal_concat", "unknown", "range(2, 6)"),
        (V1.replace("('sep_conv_3x3', 1), ('sep_conv_3x3', 0), ", "", 1), "architecture.normal", "invalid", "6"),
        (V1.replace("('sep_conv_3x3', 1)", "('sep_conv_3x3', 0)", 1), "architecture.normal", "invalid", "0 and 0"),
        (V1.replace("('avg_pool_3x3', 0)", "('avg_pool_3x3', 5)"), "architecture.reduce", "invalid", "2 and 5"),
        (V1.replace("('avg_pool_3x3', 0)", "open('file')"), "architecture.reduce", "invalid", ""),
        (V1.replace("('avg_pool_3x3', 0)", "3"), "architecture.reduce", "invalid", ""),
        (V1.replace("avg_pool_3x3", "avg_pool_3x4"), "architecture.reduce_edge_5_0", "unknown", "'avg_pool_3x3'"),
        (Architecture({"normal_edge_2_0": "none"}).to_json(), "architecture.normal_edge_2_1", "missing", ""),
    ],
)
def test_a_text_that_is_no_pair_of_cells_is_refused(small: Darts, text: str, where: str, code: Code, says: str) -> None:
    with user_error(where, code, says=says):
        small.parse(text)
