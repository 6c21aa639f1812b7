"""Costs of blocks added up, against brute force over whole spaces."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch

from espalier.nas.architecture import Architecture
from espalier.nas.cost.block_plan import block_plan
from espalier.nas.cost.block_table import BlockTable, Entry, read_block_table, space_fingerprint
from espalier.nas.cost.blocks import BlockPlan, state_of
from espalier.nas.cost.files import read_cost_table
from espalier.nas.cost.table import CostTable
from espalier.nas.elastic.cost import ElasticCosts
from espalier.nas.errors import Code
from espalier.nas.region import Region
from espalier.nas.space import ABSENT, SearchSpace
from espalier.nas.spaces.conv_macro import ConvMacro
from espalier.nas.spaces.darts import Darts
from espalier.nas.spaces.mobilenet import MobileNet
from espalier.nas.spaces.mobilenetv3 import MobileNetV3
from espalier.nas.spaces.nasbench201 import EDGES, NasBench201, edge_name
from espalier.nas.spaces.vit import ViT
from toy_space import ToySpace
from user_errors import user_error


def tiny_vit() -> ViT:
    sizes: dict[str, Any] = {"embeddings": (8, 12), "heads": (1, 2), "ratios": (1.0, 2.0), "depths": (1, 2)}
    return ViT((1, 8, 8), 4, patch=4, head_size=4, **sizes)


def tiny_v3() -> MobileNetV3:
    """Only the last of the five stages has a choice left but that of its depth."""
    return MobileNetV3((1, 8, 8), 4, widths=(8,) * 9, depths=(1, 2), kernels=(3,), expansions=(1, 3), reductions=1)


def tiny_mobilenet() -> MobileNet:
    return MobileNet((1, 8, 8), 4, widths=(8,) * 9, cells=(2, 1, 1, 1, 1, 1), reductions=1)


def table_of(space: SearchSpace, plan: BlockPlan) -> BlockTable:
    """Every block costs another power of two, so that a sum says which blocks it is of; what all pay costs 1 / 2."""
    costs = {key: float(2 ** (i % 40)) for i, key in enumerate(plan.blocks)}
    entries = {key: Entry(ms, (ms, ms), 10, "stable", plan.blocks[key].family) for key, ms in costs.items()}
    given = {"origin": {"space": "here"}, "device": {"id": "a"}, "spec": {"threads": 1}}
    return BlockTable(
        unit="ms",
        space=space_fingerprint(space),
        reference_ms=1.0,
        fixed=0.5,
        slots=plan.slots,
        entries=entries,
        **given,
    )


def brute_force(space: SearchSpace, plan: BlockPlan, table: BlockTable, architecture: Architecture) -> float:
    """The sum over the slots, one by one."""
    gates, states = space.gates(architecture), space.states(architecture)
    total = table.fixed
    for slot in plan.slots:
        state = state_of(states, slot.choices)
        if state != ABSENT and (key := slot.keys[tuple(gates[name] for name in slot.choices), state]) is not None:
            total += table.entries[key].ms
    return total


@pytest.mark.parametrize("make", [tiny_vit, tiny_mobilenet, tiny_v3])
def test_costs_are_sums_over_the_blocks_of_the_network(make: Callable[[], SearchSpace]) -> None:
    space = make()
    plan = block_plan(space)
    table = table_of(space, plan)
    costs = table.costs(space)
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        architecture = space.sample(generator)
        assert costs.cost(architecture) == pytest.approx(brute_force(space, plan, table, architecture))


def test_blocks_of_a_transformer_are_its_attention_and_its_hidden_layer() -> None:
    """By hand: what stands in each slot of two blocks, and only the second depends on the depth."""
    space = tiny_vit()
    plan = block_plan(space)
    assert {slot.name: (slot.choices, slot.dependencies) for slot in plan.slots} == {
        "rest 0": (("embedding",), ()),
        "depth.blocks.0 1": (("embedding", "heads_1"), ()),
        "depth.blocks.0 2": (("embedding", "ratio_1"), ()),
        "depth.blocks.1 1": (("embedding", "heads_2"), ("depth",)),
        "depth.blocks.1 2": (("embedding", "ratio_2"), ("depth",)),
        "rest 1": (("embedding",), ()),
    }
    assert len(plan.blocks) == 2 + 4 + 4 + 2  # both blocks share theirs
    table = table_of(space, plan)
    costs = table.costs(space)
    options = {"embedding": 8, "heads_1": 1, "ratio_1": 1.0, "heads_2": 2, "ratio_2": 2.0}
    shallow, deep = (costs.cost(Architecture({**options, "depth": depth})) for depth in (1, 2))
    (attention,) = (entry.ms for key, entry in table.entries.items() if key.startswith("8/2 "))
    (hidden,) = (entry.ms for key, entry in table.entries.items() if key.startswith("8/2.0 "))
    assert deep - shallow == attention + hidden


def test_the_expectation_is_the_mean_over_all_networks_and_has_its_gradient() -> None:
    """E = sum_a p(a) cost(a), p(a) = prod_k p_k(a_k); dE/dp_k(o) = the mean over the networks with option o."""
    space = tiny_vit()
    costs = table_of(space, block_plan(space)).costs(space)
    torch.manual_seed(0)
    p = {
        name: torch.rand(len(choice.options), dtype=torch.float64).softmax(0).requires_grad_()
        for name, choice in space.choices().items()
    }
    expected = costs.expected(p)
    expected.backward()
    names = list(p)
    mean = 0.0
    by_option = {name: torch.zeros_like(p[name]) for name in names}
    for joint in product(*(range(len(p[name])) for name in names)):
        gates = dict(zip(names, joint, strict=True))
        cost = costs.cost(space.architecture(gates))
        weights = {name: float(p[name].detach()[gates[name]]) for name in names}
        mean += cost * float(torch.tensor(list(weights.values()), dtype=torch.float64).prod())
        for name in names:
            others = [weight for other, weight in weights.items() if other != name]
            by_option[name][gates[name]] += cost * float(torch.tensor(others, dtype=torch.float64).prod())
    assert float(expected.detach()) == pytest.approx(mean)
    for name in names:  # where a choice stands in no term, its gradient is the same for all options
        given = p[name].grad if p[name].grad is not None else torch.zeros_like(p[name])
        torch.testing.assert_close(given - given.mean(), by_option[name] - by_option[name].mean())


def test_cells_cost_what_of_them_is_run() -> None:
    """Edges that nothing reads cost nothing, a pool of one tensor costs once, and one of zeros is another block.

    All edges into a node but one are added, and then are another block too.
    """
    space = NasBench201((1, 8, 8), 10, channels=2, cells=1)
    plan = block_plan(space)
    table = table_of(space, plan)
    costs = table.costs(space)
    assert isinstance(costs, ElasticCosts)
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        architecture = space.sample(generator)
        assert costs.cost(architecture) == pytest.approx(brute_force(space, plan, table, architecture))

    def cost(*operations: str) -> float:
        edges = (edge_name(*edge) for edge in EDGES)
        return costs.cost(Architecture(dict(zip(edges, operations, strict=True)))) - table.fixed

    none, skip, conv, pool = "none", "skip_connect", "nor_conv_3x3", "avg_pool_3x3"
    alone = cost(none, none, none, conv, none, none)
    assert alone > 0
    assert cost(conv, none, none, conv, none, none) == alone  # nothing reads node 1
    assert cost(conv, conv, conv, conv, none, none) == alone  # nor node 2
    assert cost(skip, none, none, none, conv, none) == alone
    added = cost(skip, none, none, conv, conv, none) - alone
    assert added not in (0, alone)
    assert cost(skip, skip, none, conv, conv, conv) == alone + 2 * added
    addition = cost(skip, none, none, skip, skip, none)
    assert addition > 0
    assert cost(skip, none, none, skip, conv, none) == added  # an addition is fused into the convolution
    assert cost(skip, none, none, pool, pool, none) == cost(none, none, none, pool, none, none) + addition
    assert cost(none, none, none, skip, pool, none) != cost(none, none, none, pool, none, none)  # of zeros


def test_layer_choices_have_rows_and_kept_edges() -> None:
    mobile = tiny_mobilenet()
    assert isinstance(table_of(mobile, block_plan(mobile)).costs(mobile), CostTable)
    darts = Darts((1, 8, 8), 10, variant="S3", channels=2, cells=3)
    plan = block_plan(darts)
    assert all(
        (key is None) == (str(darts.choices()[slot.choices[0]].options[joint[0]]) in ("none", "skip_connect"))
        for slot in plan.slots
        for (joint, _), key in slot.keys.items()
        if slot.name.startswith("cells.0")  # where no edge reduces, a skip connection is nothing
    )
    costs = table_of(darts, plan).costs(darts)
    assert isinstance(costs, CostTable)
    assert costs.cheapest(Region.whole(darts)) < costs.most_expensive(Region.whole(darts))


def test_what_cannot_be_cut_is_refused() -> None:
    with user_error("space", "unsupported", says="'inputs'"):
        block_plan(ToySpace())


def test_layers_whose_widths_hang_together_are_blocks_of_three_choices() -> None:
    plan = block_plan(ConvMacro((1, 12, 12), 4, width=0.125, kernels=(3, 5)))
    assert [len(slot.keys) for slot in plan.slots] == [6, 18, 18, 18, 3]


@pytest.fixture
def written(tmp_path: Path) -> Path:
    space = tiny_vit()
    table_of(space, block_plan(space)).write(tmp_path / "table.json")
    return tmp_path / "table.json"


def test_a_table_goes_out_and_in(written: Path) -> None:
    space = tiny_vit()
    table = read_block_table(written, space)
    architecture = space.sample(torch.Generator().manual_seed(0))
    assert read_cost_table(written, space).cost(architecture) == table.costs(space).cost(architecture)
    assert read_cost_table(written, space).unit == "ms"


@pytest.mark.parametrize(
    ("change", "where", "code", "says"),
    [
        (lambda v: v.update(unit="macs"), "table.json: unit", "mismatch", "'macs'"),
        (lambda v: v.update(form="other"), "table.json", "unreadable", "nas lut build"),
        (lambda v: v["entries"].popitem(), "table.json", "unreadable", "KeyError"),
        (lambda v: v.update(fixed=-1), "table.json", "unreadable", "-1"),
        (lambda v: v["slots"][0].update(choices=["embed"]), "table.json", "unreadable", ""),
    ],
)
def test_a_wrong_table_is_refused(
    written: Path, change: Callable[[dict[str, Any]], object], where: str, code: Code, says: str
) -> None:
    value = json.loads(written.read_text())
    change(value)
    written.write_text(json.dumps(value))
    with user_error(where, code, says=says):
        read_block_table(written, tiny_vit())


def test_a_table_of_another_space_is_refused(written: Path) -> None:
    for other in (tiny_mobilenet(), ViT((1, 8, 8), 4, patch=4, head_size=4, heads=(1, 2), depths=(1, 2))):
        with user_error("table.json: space", "mismatch"):
            read_cost_table(written, other)
