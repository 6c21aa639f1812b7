"""2:4 on a GPU: measured where there is one; without, the reason; the way of measuring on stand-ins."""

from __future__ import annotations

import copy
import json

import pytest
import torch
from torch import Tensor, nn

from espalier.pruning import semi_structured
from espalier.pruning.patterns import NOfM
from espalier.pruning.semi_structured import SemiStructured, layers_2_4, measure_2_4, missing_gpu


def network(width: int = 64) -> nn.Sequential:
    """Two linear layers pruned 2:4 by magnitude and one that is dense."""
    torch.manual_seed(0)
    made = nn.Sequential(
        nn.Flatten(), nn.Linear(64, width), nn.ReLU(), nn.Linear(width, 128), nn.ReLU(), nn.Linear(128, 10)
    )
    weights = {name: made.get_submodule(name).weight for name in ("1", "3")}
    for name, kept in NOfM(2, 4).select({name: weight.abs() for name, weight in weights.items()}).items():
        with torch.no_grad():
            weights[name].mul_(kept)
    return made


def test_layers_with_two_zeros_in_every_four() -> None:
    made = network()
    assert layers_2_4(made) == ["1", "3"]
    with torch.no_grad():
        made[3].weight[5, 8:12] = torch.tensor([1.0, 0.0, 2.0, 3.0])  # one zero in one group
    assert layers_2_4(made) == ["1"]
    odd = nn.Linear(6, 4)
    nn.init.zeros_(odd.weight)
    assert layers_2_4(odd) == []  # six inputs are no groups of four
    with torch.no_grad():
        convolution = nn.Conv2d(8, 8, 3)
        convolution.weight.zero_()
    assert layers_2_4(convolution) == []


def test_without_a_gpu_there_is_a_reason_and_no_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    result = measure_2_4(network(), (1, 8, 8), 4)
    assert result == SemiStructured(reason="needs an NVIDIA GPU, but there is none", batch=4)
    assert (result.dense_ms, result.sparse_ms, result.ratio, result.ci95) == (None,) * 4
    assert json.loads(json.dumps(result.to_dict()))["reason"] == "needs an NVIDIA GPU, but there is none"


@pytest.mark.parametrize(
    ("capability", "reason"),
    [((7, 5), "T4 has compute capability 7.5, sparse tensor cores need 8.0"), ((8, 0), None), ((12, 1), None)],
)
def test_the_capability_decides(
    capability: tuple[int, int], reason: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: capability)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "T4")
    assert missing_gpu() == reason


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A machine whose sparse layers are dense ones on the CPU; the milliseconds of each stretch are taken from here."""
    stretches_ms: list[float] = []

    def to_sparse(weight: Tensor) -> Tensor:
        if weight.shape[0] % 32:
            raise RuntimeError(f"Error original_tensor.shape {tuple(weight.shape)} is not supported!\nBoth must be ...")
        return weight

    def stretch_ms(run: object, device: torch.device) -> float:
        return stretches_ms.pop(0)

    monkeypatch.setattr(semi_structured, "missing_gpu", lambda: None)
    monkeypatch.setattr(semi_structured, "DTYPE", torch.float32)
    monkeypatch.setattr(semi_structured, "DEVICE", "cpu")
    monkeypatch.setattr(semi_structured, "_name", lambda device: "stand-in")
    monkeypatch.setattr(semi_structured, "_stretch_ms", stretch_ms)
    monkeypatch.setattr(torch.sparse, "to_sparse_semi_structured", to_sparse)
    return stretches_ms


def test_the_ratio_is_that_of_stretches_around_each_other(
    stand_in: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(semi_structured, "ROUNDS", 5)
    # The warm-up rounds count for nothing; then the GPU is slower in every round.
    stand_in.extend([900.0] * 4 * semi_structured.WARM_UP)
    for slow in (1.0, 1.1, 1.2, 1.3, 1.4):
        stand_in.extend([2.0 * slow, 1.0 * slow, 1.2 * slow, 2.4 * slow])
    made = network()
    before = copy.deepcopy(made.state_dict())
    result = measure_2_4(made, (1, 8, 8), 4)
    assert stand_in == []
    assert result.ratio == pytest.approx(2.2 / 4.4)
    assert result.ci95 == pytest.approx((0.5, 0.5))
    assert (result.dense_ms, result.sparse_ms) == pytest.approx((1.2 * 2.2, 1.2 * 1.1))
    assert (result.gpu, result.batch, result.rounds, result.reason) == ("stand-in", 4, 5, None)
    assert (result.sparse, result.left) == (("1", "3"), {})
    assert all(torch.equal(before[key], value) for key, value in made.state_dict().items())
    assert made.training
    json.dumps(result.to_dict(), allow_nan=False)


def test_layers_that_torch_refuses_stay_dense(stand_in: list[float]) -> None:
    stand_in.extend([1.0] * 4 * (semi_structured.WARM_UP + semi_structured.ROUNDS))
    result = measure_2_4(network(width=40), (1, 8, 8), 4)
    assert result.sparse == ("3",)
    assert result.left == {"1": "Error original_tensor.shape (40, 64) is not supported!"}
    assert result.ratio == 1.0


def test_no_layer_is_no_number(stand_in: list[float]) -> None:
    only = nn.Sequential(nn.Flatten(), nn.Linear(64, 40))
    nn.init.zeros_(only[1].weight)
    reason = measure_2_4(only, (1, 8, 8), 4).reason
    assert reason == "torch supports none of the layers (Error original_tensor.shape (40, 64) is not supported!)"
    dense = nn.Sequential(nn.Flatten(), nn.Linear(64, 64))
    assert str(measure_2_4(dense, (1, 8, 8), 4).reason).startswith("no linear layer has two zeros in every four")


def test_other_outputs_are_no_number(stand_in: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.sparse, "to_sparse_semi_structured", lambda weight: 2 * weight)
    result = measure_2_4(network(), (1, 8, 8), 4)
    assert result.ratio is None
    assert str(result.reason).startswith("outputs differ by ")


@pytest.mark.skipif(missing_gpu() is not None, reason="needs a GPU with sparse tensor cores")
def test_on_this_gpu() -> None:
    result = measure_2_4(network(), (1, 8, 8), 64)
    assert result.reason is None
    assert result.sparse == ("1", "3")
    assert result.ci95 is not None
    assert result.ratio is not None
    assert 0 < result.ci95[0] <= result.ratio <= result.ci95[1]
