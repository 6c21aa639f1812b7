"""Shrinking: what is left equals the dense network with the removed units silent, and costs what was asked for."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from structured_nets import NETWORKS, SHAPE, Crossed, Transformer, Untraceable, network
from torch import nn

from espalier.export.onnx import export_onnx
from espalier.nas.cost.count import count
from espalier.nas.errors import Code, UserError
from espalier.pruning.structured import BatchNormScale, Group, Magnitude, Random, Target, groups_of, shrink
from user_errors import user_error


def by_name(groups: tuple[Group, ...] | list[Group]) -> dict[str, Group]:
    return {group.name: group for group in groups}


@pytest.mark.parametrize("name", NETWORKS)
def test_half_the_macs_of_every_form(name: str) -> None:
    dense = network(name)
    before = copy.deepcopy(dense.state_dict())
    small = shrink(dense, SHAPE, Target("macs", share=0.5))
    assert small.after == count(small.model, SHAPE).macs <= 0.5 * count(dense, SHAPE).macs == 0.5 * small.before
    assert small.share == small.after / small.before
    assert small.difference < 1e-9
    assert all(torch.equal(value, before[key]) for key, value in dense.state_dict().items())
    assert not small.model.training
    for group in small.groups:
        assert group.kept == len(group.indices) > 0
        assert group.kept == group.width or group.kept % group.step == 0
        assert group.dense_because is None or group.kept == group.width


def test_dead_channels_are_those_that_go_and_nothing_changes() -> None:
    """With channels whose weights are zero, the smaller network is exactly the dense one."""
    dense = network("chain")
    alive = {"0": range(0, 16, 2), "1": range(8, 24), "2": range(16)}
    for key, following in (("0", "1"), ("1", "2"), ("2", None)):
        dead = [c for c in range(dense.get_submodule(f"{key}.0").out_channels) if c not in alive[key]]
        with torch.no_grad():
            dense.get_submodule(f"{key}.0").weight[dead] = 0
            reader = dense.get_submodule("3.2" if following is None else f"{following}.0")
            reader.weight[:, dead] = 0
    # 16 channels become 8, 32 become 16, 24 become 16
    macs = 16 * 16 * 3 * 9 * 8 + 8 * 8 * 8 * 9 * 16 + 8 * 8 * 16 * 9 * 16 + 16 * 5 + 5
    small = shrink(dense, SHAPE, Target("macs", most=macs))
    assert small.after == macs
    groups = by_name(small.groups)
    assert {key: groups[f"{key}.0"].indices for key in alive} == {key: tuple(kept) for key, kept in alive.items()}
    x = torch.randn(4, *SHAPE, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(small.model(x), dense(x), rtol=1e-4, atol=1e-4)


def test_the_last_step_is_the_one_that_reaches_the_target() -> None:
    """With a target just below what was reached, the next step goes, and it is one step of one group."""
    dense = network("residual")
    first = shrink(dense, SHAPE, Target("macs", share=0.6))
    second = shrink(dense, SHAPE, Target("macs", most=first.after - 1))
    again = shrink(dense, SHAPE, Target("macs", most=first.after))
    assert again.after == first.after
    one, two = by_name(first.groups), by_name(second.groups)
    changed = [name for name in one if one[name].kept != two[name].kept]
    assert len(changed) == 1
    assert one[changed[0]].kept - two[changed[0]].kept == one[changed[0]].step
    assert set(two[changed[0]].indices) < set(one[changed[0]].indices)


def test_widths_are_multiples_or_halves_of_what_is_narrow() -> None:
    groups = by_name(groups_of(network("excited"), SHAPE))
    assert {name: (group.width, group.step) for name, group in groups.items()} == {
        "0.0": (32, 8),
        "1.reduce": (8, 4),
        "2.0": (32, 8),
        "3.reduce": (4, 2),
        "4.2": (5, 2),
    }
    assert by_name(groups_of(network("grouped"), SHAPE))["0.0"].step == 2  # two groups of 4 input channels are 8


def test_a_uniform_ratio_takes_the_same_of_every_group() -> None:
    small = shrink(network("chain"), SHAPE, Target("macs", share=0.5), ratio="uniform", round_to=1)
    shares = [group.kept / group.width for group in small.groups if group.dense_because is None]
    assert max(shares) - min(shares) <= 1 / 16 + 1e-9


def test_parameters_and_measured_costs() -> None:
    dense = network("chain")
    small = shrink(dense, SHAPE, Target("params", share=0.4))
    assert small.after == sum(p.numel() for p in small.model.parameters()) <= 0.4 * small.before
    modes: list[bool] = []

    def measure(model: nn.Module) -> float:
        modes.append(model.training)
        return 1e3 + sum(p.numel() for p in model.parameters())

    measured = shrink(dense.train(), SHAPE, Target(measure, most=1e3 + small.after))
    assert measured.after == 1e3 + sum(p.numel() for p in measured.model.parameters()) <= 1e3 + small.after
    assert measured.model.training and not any(modes)


def test_outputs_and_what_is_excluded_stay() -> None:
    dense = network("chain")
    groups = by_name(groups_of(dense, SHAPE, exclude=["1.*"]))
    assert groups["3.2"].dense_because == "the network's outputs"
    assert groups["0.0"].dense_because == groups["1.0"].dense_because == "1.0 is excluded"
    assert groups["2.0"].dense_because is None
    included = by_name(groups_of(dense, SHAPE, include=["1.*"]))
    assert included["1.0"].dense_because is None
    assert included["0.0"].dense_because == "0.0 is not included"
    with user_error("exclude", "unknown", says="'1.1'"):
        groups_of(dense, SHAPE, exclude=["1.1"])


def test_an_unreachable_target_names_the_nearest() -> None:
    dense = network("chain")
    with pytest.raises(UserError) as caught:
        shrink(dense, SHAPE, Target("macs", share=0.001))
    assert (caught.value.where, caught.value.code) == ("target", "infeasible")
    nearest = float(str(caught.value).partition("nearest is ")[2].partition(",")[0])
    assert shrink(dense, SHAPE, Target("macs", most=nearest)).after == nearest


def test_channels_that_meet_outside_a_layer_stay_dense() -> None:
    """A softmax over channels: without one, the others are larger."""
    groups = by_name(groups_of(Crossed().eval(), SHAPE))
    assert "differs from the masked network" in str(groups["first.0"].dense_because)
    assert groups["second.0"].dense_because is None


def test_a_network_that_cannot_be_traced_stays_as_it_is() -> None:
    groups = groups_of(Untraceable().eval(), SHAPE)
    assert all(group.dense_because for group in groups)
    assert {group.name for group in groups} == {"body.0", "head.2"}
    with user_error("target", "infeasible", says="2 of 2 groups stay dense"):
        shrink(Untraceable().eval(), SHAPE, Target("macs", share=0.5))


def test_layers_with_a_weight_of_two_stay_dense() -> None:
    groups = by_name(groups_of(network("shared"), SHAPE))
    assert groups["first"].dense_because == "the weights of first are also those of second"
    assert groups["stem.0"].dense_because is None  # one layer used twice is one layer


def test_whole_heads_go_and_what_norms_average_over_stays_while_it_can() -> None:
    small = shrink(network("transformer"), SHAPE, Target("macs", share=0.55))
    assert isinstance(small.model, Transformer)
    kinds = {group.kind: group for group in small.groups if group.kept < group.width}
    assert set(kinds) <= {"heads", "channels"}
    for group in small.groups:
        if group.kind == "heads":
            attention = small.model.get_submodule(group.name)
            assert (attention.num_heads, attention.attn_dim) == (group.kept, 8 * group.kept)
            assert attention.qkv.weight.shape == (3 * 8 * group.kept, 32)
    narrow = shrink(network("transformer"), SHAPE, Target("macs", share=0.2), least=0.1)
    assert narrow.difference < 1e-9
    assert by_name(narrow.groups)["embed"].kept < 32
    assert narrow.model.norm.normalized_shape == (by_name(narrow.groups)["embed"].kept,)


def test_blocks_are_replaced_by_what_passes_through() -> None:
    dense = network("residual")
    names = {group.name for group in groups_of(dense, SHAPE, depth=True) if group.kind == "block"}
    assert names == {"1", "2"}  # not the chain of convolutions before them, which has no shortcut
    with torch.no_grad():
        for parameter in dense.get_submodule("2").parameters():
            parameter.mul_(1e-3)
    small = shrink(dense, SHAPE, Target("macs", share=0.75), depth=True)
    assert isinstance(small.model.get_submodule("2"), nn.Identity)
    assert [group.kept for group in small.groups if group.kind == "block"] == [1, 0]
    assert small.difference < 1e-9


def test_without_batch_norms_their_scales_say_nothing() -> None:
    with user_error("target", "infeasible", says="6 of 6 groups stay dense"):
        shrink(network("transformer"), SHAPE, Target("macs", share=0.5), importance=BatchNormScale())
    small = shrink(network("chain"), SHAPE, Target("macs", share=0.5), importance=BatchNormScale())
    assert small.share <= 0.5


def test_chance_is_repeatable() -> None:
    kept = [
        shrink(
            network("chain"), SHAPE, Target("macs", share=0.5), importance=Random(torch.Generator().manual_seed(seed))
        ).groups
        for seed in (0, 0, 1)
    ]
    assert kept[0] == kept[1] != kept[2]


@pytest.mark.parametrize(
    ("options", "where", "code"),
    [
        ({}, "target", "missing"),
        ({"share": 0.5, "most": 3.0}, "target", "conflict"),
        ({"share": 1.5}, "share", "out_of_range"),
        ({"most": 0.0}, "most", "out_of_range"),
    ],
)
def test_targets_are_checked(options: dict[str, float], where: str, code: Code) -> None:
    with user_error(where, code):
        Target("macs", **options)


def test_a_target_of_something_else_is_named() -> None:
    with user_error("of", "unknown", nearest="macs"):
        Target("mac", share=0.5)  # type: ignore[arg-type]


def test_options_are_checked() -> None:
    with user_error("round_to", "out_of_range"):
        groups_of(network("chain"), SHAPE, round_to=0)
    with user_error("least", "out_of_range"):
        groups_of(network("chain"), SHAPE, least=2.0)
    with user_error("model", "unsupported"):
        groups_of(nn.Sequential(nn.ReLU()), SHAPE)


def test_a_target_that_is_met_already_takes_nothing() -> None:
    dense = network("chain")
    small = shrink(dense, SHAPE, Target("macs", most=1e12), importance=Magnitude())
    assert small.after == small.before and small.structure == {} and small.difference == 0


def test_a_last_layer_of_zeros_hides_nothing() -> None:
    """As many begin: the outputs are all equal, and removal is judged by random weights."""
    dense = network("chain")
    last = [module for module in dense.modules() if isinstance(module, nn.Linear)][-1]
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)
    assert shrink(dense, SHAPE, Target("macs", share=0.5)).difference == 0


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_other_precisions_shrink_too(dtype: torch.dtype) -> None:
    small = shrink(network("chain").to(dtype), SHAPE, Target("macs", share=0.5))
    assert small.share <= 0.5
    assert {parameter.dtype for parameter in small.model.parameters()} == {dtype}


def test_steps_that_a_large_last_one_made_needless_are_taken_back() -> None:
    """Whole blocks are large steps: without this the residual network was left with .26 of its MACs."""
    small = shrink(network("residual"), SHAPE, Target("macs", share=0.5), depth=True)
    assert 0.4 < small.share <= 0.5


@pytest.mark.parametrize("name", ["cascade", "transformer"])
def test_what_is_left_is_exported(name: str, tmp_path: Path) -> None:
    small = shrink(network(name), SHAPE, Target("macs", share=0.5))
    exported = export_onnx(small.model, SHAPE, tmp_path / "small.onnx", exporter="torchscript")
    assert exported.size_bytes > 0  # and it raises where ONNX Runtime gives other numbers than torch
