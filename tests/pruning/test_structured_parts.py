"""The parts of structured pruning by themselves: cuts of layers, steps, order, search, importances."""

from __future__ import annotations

import pytest
import torch
from structured_nets import SHAPE, Attention, Mlp, network
from torch import Tensor, nn

from espalier.pruning.structured import BatchNormScale, Magnitude, Saliency, Taylor, mean_gradients
from espalier.pruning.structured.attributes import attention_heads, hidden_layers, update_channel_counts
from espalier.pruning.structured.blocks import residual_blocks
from espalier.pruning.structured.groups import Attribute, Member, Units, lowest_units, steps
from espalier.pruning.structured.layers import channels, remove_channels
from espalier.pruning.structured.order import order
from espalier.pruning.structured.removal import mask, remove
from espalier.pruning.structured.search import fewest_moves
from user_errors import user_error


def units_of(width: int, channels_: int = 1) -> Units:
    return Units("a", "channels", width, (), channels_)


@pytest.mark.parametrize(
    ("width", "size", "rounding", "step", "kept"),
    [
        (32, 1, (8, 0.1), 8, [32, 24, 16, 8]),
        (32, 1, (8, 0.5), 8, [32, 24, 16]),
        (20, 1, (8, 0.1), 8, [20, 16, 8]),
        (12, 1, (8, 0.1), 4, [12, 8, 4]),
        (3, 64, (8, 0.1), 1, [3, 2, 1]),  # heads of 64
        (8, 4, (8, 0.1), 2, [8, 6, 4, 2]),  # groups of 4
        (5, 1, (1, 0.0), 1, [5, 4, 3, 2, 1]),
        (1, 1, (8, 0.0), 1, [1]),
    ],
)
def test_steps(width: int, size: int, rounding: tuple[int, float], step: int, kept: list[int]) -> None:
    round_to, least = rounding
    assert steps(units_of(width, size), round_to=round_to, least=least) == (step, kept)


def test_the_lowest_go_and_of_equal_ones_the_first() -> None:
    assert lowest_units(torch.tensor([1.0, 0.0, 1.0, 1.0]), 2).tolist() == [True, True, False, False]


@pytest.mark.parametrize(
    ("layer", "kept", "attributes", "shape"),
    [
        (nn.Conv2d(4, 6, 3), {"out": [1, 4]}, {"out_channels": 2, "in_channels": 4}, (2, 4, 3, 3)),
        (nn.Conv2d(4, 6, 3), {"in": [0]}, {"out_channels": 6, "in_channels": 1}, (6, 1, 3, 3)),
        (nn.Conv2d(6, 6, 3, groups=6), {"out": [1, 5], "in": [1, 5]}, {"groups": 2, "in_channels": 2}, (2, 1, 3, 3)),
        (
            nn.Conv2d(6, 9, 1, groups=3),
            {"out": [3, 4, 5], "in": [2, 3]},
            {"groups": 1, "out_channels": 3},
            (3, 2, 1, 1),
        ),
        (nn.ConvTranspose2d(4, 6, 2), {"out": [0, 1], "in": [3]}, {"out_channels": 2, "in_channels": 1}, (1, 2, 2, 2)),
        (nn.ConvTranspose2d(4, 4, 2, groups=4), {"out": [2], "in": [2]}, {"groups": 1, "in_channels": 1}, (1, 1, 2, 2)),
        (nn.Linear(5, 7), {"out": [6], "in": [0, 4]}, {"out_features": 1, "in_features": 2}, (1, 2)),
        (nn.BatchNorm2d(5), {"out": [0, 3]}, {"num_features": 2}, (2,)),
        (nn.LayerNorm(5), {"out": [0, 3]}, {"normalized_shape": (2,)}, (2,)),
        (nn.GroupNorm(1, 6), {"out": [1, 2]}, {"num_channels": 2, "num_groups": 1}, (2,)),
        (nn.GroupNorm(6, 6), {"out": [1, 2]}, {"num_channels": 2, "num_groups": 2}, (2,)),
        (nn.PReLU(5), {"out": [4]}, {"num_parameters": 1}, (1,)),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else "",
)
def test_cuts(
    layer: nn.Module, kept: dict[str, list[int]], attributes: dict[str, object], shape: tuple[int, ...]
) -> None:
    stays = {side: torch.zeros(channels(layer, side) or 0, dtype=torch.bool) for side in kept}
    for side, indices in kept.items():
        stays[side][indices] = True
    old = layer.weight.detach().clone()
    remove_channels(layer, stays)
    assert tuple(layer.weight.shape) == shape
    assert {key: getattr(layer, key) for key in attributes} == attributes
    if isinstance(layer, nn.Linear):
        assert torch.equal(layer.weight, old[[6]][:, [0, 4]])
    if isinstance(layer, nn.BatchNorm2d):
        assert layer.running_mean is not None and len(layer.running_mean) == 2


def test_no_part_of_a_convolutions_group_can_go() -> None:
    conv = nn.Conv2d(6, 6, 1, groups=3)
    part = torch.tensor([True, True, True, False, True, True])
    with pytest.raises(ValueError, match="a part of a group"):
        remove_channels(conv, {"out": part, "in": part})
    with pytest.raises(ValueError, match="one side only"):
        remove_channels(conv, {"out": part})
    with pytest.raises(ValueError, match="no channels that can be removed"):
        remove_channels(nn.ReLU(), {"out": part})


def test_a_masked_layer_norm_averages_over_what_stays() -> None:
    norm = nn.Sequential(nn.LayerNorm(6))
    units = Units("n", "normalised", 6, (Member(("0", "out"), torch.arange(6)),))
    removed = {"n": torch.tensor([False, True, False, False, True, False])}
    x = torch.randn(3, 6)
    mask(norm, [units], removed)
    expected = torch.zeros(3, 6)
    expected[:, [0, 2, 3, 5]] = nn.functional.layer_norm(x[:, [0, 2, 3, 5]], (4,))
    torch.testing.assert_close(norm(x), expected)


def test_order_takes_the_least_important_step_first() -> None:
    """Means of steps: a (.1, .2 | 3, 4) -> .15, 3.5; b (1, 1 | 2, 9) -> 1, 5.5. Costs 1 and 10 turn them round."""
    groups = [Units(name, "channels", 4, ()) for name in "ab"]
    scores = {"a": torch.tensor([3.0, 0.1, 4.0, 0.2]), "b": torch.tensor([1.0, 1.0, 2.0, 9.0])}
    kept = {"a": [4, 2, 0], "b": [4, 2, 0]}
    assert order(groups, kept, scores, ratio="global", unit_cost=None).moves == ["a", "b", "a", "b"]
    by_cost = order(groups, kept, scores, ratio="global", unit_cost={"a": 1.0, "b": 10.0})
    assert by_cost.moves == ["b", "a", "b", "a"]  # .1, .15, .55, 3.5
    assert by_cost.removed(2)["a"].tolist() == [False, True, False, True]
    assert by_cost.removed(1).keys() == {"b"}
    assert order(groups, kept, scores, ratio="uniform", unit_cost=None).moves == ["a", "b", "a", "b"]


@pytest.mark.parametrize("error", [0.0, 0.3, -0.3, 5.0])
def test_the_shortest_beginning_is_found_wherever_the_guess_lies(error: float) -> None:
    """Against counting on from nothing, for all limits, with guesses that are right, a little and wholly wrong."""
    costs = [100, 90, 89, 80, 50, 49, 30, 10]
    for limit in range(5, 100):
        asked: list[int] = []

        def cost(number: int, asked: list[int] = asked) -> float:
            asked.append(number)
            return costs[number]

        number, after = fewest_moves(cost, lambda k: costs[k] / 100 + error, 7, limit, 100)
        expected = next((k for k, value in enumerate(costs) if value <= limit), 7)
        assert (number, after) == (expected, costs[expected])
        assert len(asked) <= 8


def chain_units() -> tuple[nn.Module, Units]:
    """Two linear layers 2 -> 3 -> 2 with a batch norm between."""
    model = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3), nn.ReLU(), nn.Linear(3, 2))
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[3.0, 4.0], [0.0, 5.0], [0.0, 2.5]]))
        model[3].weight.copy_(torch.tensor([[1.0, 0.0, 2.0], [0.0, 3.0, 0.0]]))
        model[1].weight.copy_(torch.tensor([0.5, -2.0, 1.0]))
    each = torch.arange(3)
    return model, Units(
        "0", "channels", 3, (*(Member((f"{k}", "out"), each) for k in (0, 1)), Member(("3", "in"), each))
    )


def test_magnitude() -> None:
    """Rows have norms 5, 5, 2.5 (mean 25/6), columns 1, 3, 2 (mean 2)."""
    model, units = chain_units()
    rows, columns = torch.tensor([5.0, 5.0, 2.5]) * 6 / 25, torch.tensor([1.0, 3.0, 2.0]) / 2
    torch.testing.assert_close(Magnitude()(model, units), ((rows + columns) / 2).double())


def test_scales_of_batch_norms() -> None:
    model, units = chain_units()
    torch.testing.assert_close(BatchNormScale()(model, units), torch.tensor([0.5, 2.0, 1.0]).double())
    assert BatchNormScale()(model, Units("3", "channels", 2, (Member(("3", "out"), torch.arange(2)),))) is None


def test_taylor_is_the_first_order_change_of_the_loss() -> None:
    """The sum of w dL/dw over the weights that read a unit; the loss here is linear, so that it is the exact change."""
    model, units = chain_units()
    model.eval()
    x = torch.rand(8, 2)

    def loss(network: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        return network(batch[0]).sum(dim=1).mean()

    gradients = mean_gradients(model, loss, [(x[:4], x[:4]), (x[4:], x[4:])])
    scores = Taylor(gradients)(model, units)
    whole = loss(model, (x, x))
    for unit in range(3):
        with torch.no_grad():
            kept = model[3].weight[:, unit].clone()
            model[3].weight[:, unit] = 0
            change = (whole - loss(model, (x, x))).abs()
            model[3].weight[:, unit] = kept
        torch.testing.assert_close(scores[unit].float(), change)
    assert not model.training and model[0].weight.grad is None


def test_saliencies_add_up() -> None:
    model, units = chain_units()
    given = {"0.weight": torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]), "3.weight": torch.full((2, 3), 10.0)}
    assert Saliency(given)(model, units).tolist() == [23, 27, 31]
    with user_error("0.weight", "missing"):
        Saliency({"3.weight": given["3.weight"]})(model, units)
    with user_error("3.weight", "mismatch", says="(3,)"):
        Taylor({"0.weight": given["0.weight"], "3.weight": torch.zeros(3)})(model, units)


def test_gradients_need_data() -> None:
    with user_error("data", "too_few"):
        mean_gradients(nn.Linear(2, 2), lambda model, batch: model(batch[0]).sum(), [])


def test_heads_and_hidden_layers_are_known_by_their_form() -> None:
    model = nn.ModuleDict({"attn": Attention(8, 2, 3), "mlp": Mlp(8, 20)})
    (heads,) = attention_heads(model)
    assert (heads.width, heads.channels, heads.layers) == (2, 3, ("attn.qkv", "attn.proj"))
    assert heads.members[0].unit_of.tolist() == [0, 0, 0, 1, 1, 1] * 3
    assert heads.attributes == (Attribute("attn", "num_heads", 1), Attribute("attn", "attn_dim", 3))
    (hidden,) = hidden_layers(model)
    assert (hidden.name, hidden.width, hidden.layers) == ("mlp.fc1", 20, ("mlp.fc1", "mlp.fc2"))


def test_parts_of_a_split_convolution_are_counted_again() -> None:
    mixed = nn.ModuleDict({"0": nn.Conv2d(4, 4, 1), "1": nn.Conv2d(2, 2, 1)})
    mixed.splits = [8, 8]  # type: ignore[assignment]
    update_channel_counts(mixed)
    assert mixed.splits == [4, 2]


def test_a_bare_parameter_follows() -> None:
    model = nn.Module()
    model.scale = nn.Parameter(torch.arange(12.0).reshape(3, 4))
    units = Units("s", "channels", 4, (Member(("scale", "1"), torch.tensor([0, 1, 2, 3])),))
    remove(model, [units], {"s": torch.tensor([True, False, True, False])})
    assert model.scale.tolist() == [[1, 3], [5, 7], [9, 11]]


def test_only_shortcuts_make_a_block() -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 3, 1)

        def forward(self, x: Tensor) -> Tensor:
            return 0.5 * x + self.conv(x)

    model = nn.Sequential(Scaled(), network("residual"))
    names = [units.name for units in residual_blocks(model.eval(), torch.randn(2, *SHAPE))]
    assert names == ["1.1", "1.2"]
    excluded = residual_blocks(model, torch.randn(2, *SHAPE), exclude=["1.1.conv2"])
    assert [units.name for units in excluded] == ["1.2"]
