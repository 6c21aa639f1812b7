"""Which weights may become zero, which layers are left out, and that looking at them changes nothing."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from espalier.pruning.pruned_model import Plan, load_pruned, save_pruned
from espalier.pruning.structure import structure_of
from espalier.pruning.weights import left_out, prunable_weights

SPECTRAL = """
import torch
from torch import nn

def network():
    torch.manual_seed(0)
    layer = nn.utils.parametrizations.spectral_norm(nn.Conv2d(3, 8, 3))
    return nn.Sequential(layer, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4))
"""


def mixed() -> nn.ModuleDict:
    return nn.ModuleDict({
        "words": nn.Embedding(10, 4),
        "memory": nn.LSTM(4, 6, num_layers=2),
        "normed": nn.utils.parametrizations.weight_norm(nn.Linear(6, 6)),
        "head": nn.Linear(6, 3),
    })  # fmt: skip


def test_recurrent_and_embedding_layers_are_pruned_where_they_are_named() -> None:
    model = mixed()
    assert set(prunable_weights(model)) == {"head.weight"}
    memory = {f"memory.weight_{kind}_l{layer}" for kind in ("ih", "hh") for layer in (0, 1)}
    assert set(prunable_weights(model, include=["memory"])) == memory
    assert set(prunable_weights(model, include=["*", "memory", "wor*"])) == {"words.weight", "head.weight", *memory}
    assert set(prunable_weights(model, include=["*", "memory"], exclude=["memory"])) == {"head.weight"}


def test_layers_that_were_never_candidates_are_listed_with_their_type() -> None:
    model = mixed()
    expected = {"words": "Embedding", "memory": "LSTM", "normed": "Linear with a computed weight"}
    assert left_out(model, prunable_weights(model)) == expected
    del expected["memory"]
    assert left_out(model, prunable_weights(model, include=["*", "memory"])) == expected


@pytest.mark.parametrize("norm", [nn.utils.parametrizations.spectral_norm, nn.utils.parametrizations.weight_norm])
def test_looking_for_weights_changes_nothing(norm: type[nn.Module]) -> None:
    model = nn.Sequential(norm(nn.Linear(6, 6)), nn.Linear(6, 2)).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    prunable_weights(model)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_a_network_with_spectral_norm_is_read_as_it_was_written(tmp_path: Path) -> None:
    source = tmp_path / "nets.py"
    source.write_text(SPECTRAL)
    plan = Plan(f"{source}:network", (3, 8, 8), ("a", "b", "c", "d"), (0.5,) * 3, (0.25,) * 3)
    network = plan.dense_factory()()
    with torch.no_grad():
        for _ in range(3):  # as in a training
            network.train()(torch.randn(2, 3, 8, 8))
    network.eval()
    folder = tmp_path / "pruned"
    save_pruned(folder, network, Plan(**{**vars(plan), "structure": structure_of(network, network)}))
    x = torch.randn(4, 3, 8, 8)
    with torch.no_grad():
        assert torch.equal(load_pruned(folder)(x), network(x))
