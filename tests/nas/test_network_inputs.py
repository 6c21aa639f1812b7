"""Inputs by name, outputs of any structure, steps of the user's, and costs of networks that look at their numbers."""

from __future__ import annotations

from collections import OrderedDict, namedtuple
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from espalier.nas.cost.count import Cost, count
from espalier.nas.errors import Code, UserError
from espalier.nas.network_inputs import (
    Input,
    as_inputs,
    call,
    named_outputs,
    parse_input,
    parse_shape,
    prediction,
    random_inputs,
    with_one_input,
    with_training_outputs,
    without_view,
)
from espalier.nas.task import Classification, batch_loss
from espalier.pruning.allocation.macs import layer_macs
from user_errors import user_error

A, B = torch.zeros(2, 3), torch.ones(2, 4)
Outputs = namedtuple("Outputs", ["logits", "aux"])


@pytest.mark.parametrize(
    ("outputs", "names", "chosen"),
    [
        (A, ["logits"], A),
        ((A, B), ["output_0", "output_1"], A),
        ([None, B], ["output_1"], B),
        (OrderedDict(aux=A, out=B), ["aux", "out"], B),
        ({"hidden": A, "logits": B}, ["hidden", "logits"], B),
        ({"hidden": A, "more": (B, None)}, ["hidden", "more.0"], A),
        (Outputs(A, B), ["logits", "aux"], A),
        ([[A], {"x": B}], ["output_0.0", "output_1.x"], A),
    ],
)
def test_outputs_have_names_and_one_is_the_prediction(outputs: Any, names: list[str], chosen: Tensor) -> None:
    assert list(named_outputs(outputs)) == names
    assert prediction(outputs) is chosen
    if not isinstance(outputs, Tensor):
        assert prediction(outputs, names[-1]) is list(named_outputs(outputs).values())[-1]


def test_an_output_by_its_place() -> None:
    assert prediction((A, B), "1") is B
    with user_error("outputs", "unknown"):
        prediction((A, B), "2")


@pytest.mark.parametrize("outputs", [None, (), {}, "text", (A, 3), {"loss": 0.5}])
def test_what_holds_no_tensors_is_refused(outputs: Any) -> None:
    with user_error("model", "unsupported"):
        named_outputs(outputs)


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("ids", "invalid"),
        ("ids:", "invalid"),
        ("2x:3", "invalid"),
        ("ids:x", "invalid"),
        ("ids:3x", "invalid"),
        ("ids:0", "invalid"),
        ("ids:-1", "invalid"),
        ("ids:3:float16", "unknown"),
        ("ids:99999x99999", "out_of_range"),
        ("ids:" + "9x" * 500 + "9", "out_of_range"),
    ],
)
def test_inputs_of_another_form(text: str, code: Code) -> None:
    with pytest.raises(UserError) as caught:
        parse_input(text)
    assert caught.value.code == code
    assert len(str(caught.value)) < 500


def test_inputs_are_read_back() -> None:
    for text in ("ids:128:int64", "mask:4x5:bool", "x:3x32x32:float32"):
        assert str(parse_input(text)) == text
    assert parse_input("x:3") == Input("x", (3,))
    assert as_inputs(parse_shape("1x16000")) == (Input("input", (1, 16000)),)


class Two(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.words, self.linear = nn.Embedding(5, 4), nn.Linear(4, 3)

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        result: Tensor = self.linear((self.words(ids) * mask.unsqueeze(-1)).sum(1))
        return result


def test_a_network_seen_as_one_of_a_single_input() -> None:
    network, inputs = Two().eval(), (Input("mask", (6,)), Input("ids", (6,), "int64"))
    values = random_inputs(inputs, 1, torch.Generator().manual_seed(0))
    seen = with_one_input(network, inputs)
    assert torch.equal(seen(torch.zeros(2, 1)), call(network, inputs, values).expand(2, 3))
    assert seen.state_dict().keys() == network.state_dict().keys()
    assert type(without_view(seen)) is Two
    assert count(seen, (1,)) == Cost(5 * 4 + 4 * 3 + 3, 4 * 3 + 3)


def test_auxiliary_heads_are_seen_in_evaluation_mode() -> None:
    class Aux(nn.Sequential):
        def forward(self, x: Tensor) -> Any:
            y = super().forward(x)
            return (y, y + 1) if self.training else y

    seen = with_training_outputs(Aux(nn.BatchNorm1d(3), nn.Dropout()).eval()).eval()
    assert isinstance(seen(torch.randn(2, 3)), tuple)
    assert seen.training
    assert not any(layer.training for layer in seen.children())
    assert isinstance(without_view(seen).eval()(torch.randn(2, 3)), Tensor)


class Branch(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.linear = nn.Conv2d(3, 4, 3), nn.Linear(4, 5)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        if bool(x.max() > 1e6):
            y = y.relu()
        result: Tensor = self.linear(y.mean((2, 3)) * x.abs().mean().item())
        return result


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_costs_of_a_network_that_looks_at_its_numbers(dtype: torch.dtype) -> None:
    network = Branch().to(dtype)
    assert count(network, (3, 8, 8)).macs == 4 * 27 * 36 + 4 * 36 + 20 + 5
    assert layer_macs(network, (3, 8, 8)) == {"conv.weight": 36.0, "linear.weight": 1.0}
    assert count(Branch().to("meta"), (3, 8, 8)).macs == count(network, (3, 8, 8)).macs
    assert network.conv.weight.dtype == dtype


def test_a_network_that_cannot_run_says_why() -> None:
    with pytest.raises(RuntimeError, match="channels"):
        count(Branch(), (1, 8, 8))


def test_steps_of_the_user() -> None:
    x, y = torch.randn(4, 3), torch.tensor([0, 1, 2, 0])
    network = nn.Linear(3, 3)

    def twice(model: nn.Module, batch: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        logits = model(2 * batch[0])
        return nn.functional.cross_entropy(logits, batch[1]), logits

    plain, own = Classification(3), Classification(3, step=twice)
    assert torch.equal(batch_loss(own, network, (x, y))[0], batch_loss(plain, network, (2 * x, y))[0])
    assert own.evaluate(network, [(x, y)]) == plain.evaluate(network, [(2 * x, y)])
    only = Classification(3, step=lambda model, batch: model(batch[0]).sum())
    assert only.evaluate(network, [(x, y)]) == plain.evaluate(network, [(x, y)])
    for wrong in (1.0, None, torch.zeros(2), torch.tensor(3), (torch.zeros(()), x, y)):
        with user_error("train.step", "user_code"):
            batch_loss(Classification(3, step=lambda model, batch, wrong=wrong: wrong), network, (x, y))
