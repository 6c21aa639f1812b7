"""The structure of a shrunk network as data: what differs, and a dense network made the same from it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from structured_nets import NETWORKS, SHAPE, network
from torch import nn

from espalier.nas.errors import Code
from espalier.pruning.structure import apply_structure, structure_of
from espalier.pruning.structured import Target, shrink
from user_errors import user_error


@pytest.mark.parametrize("name", NETWORKS)
def test_a_dense_network_becomes_the_small_one(name: str) -> None:
    small = shrink(network(name), SHAPE, Target("macs", share=0.6), depth=True)
    again = network(name, seed=1)
    apply_structure(again, json.loads(json.dumps(small.structure)))
    again.load_state_dict(small.model.state_dict())
    assert structure_of(network(name), again) == small.structure
    assert [type(module) for module in again.modules()] == [type(module) for module in small.model.modules()]
    x = torch.randn(2, *SHAPE, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(again(x), small.model(x), rtol=1e-4, atol=1e-5)


def test_what_is_written() -> None:
    dense = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Conv2d(8, 2, 1), nn.ReLU())
    small = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 2, 1), nn.Identity())
    assert structure_of(dense, small) == {
        "0": {"tensors": {"weight": [4, 3, 3, 3], "bias": [4]}, "attributes": {"out_channels": 4}},
        "1": {
            "tensors": {"weight": [4], "bias": [4], "running_mean": [4], "running_var": [4]},
            "attributes": {"num_features": 4},
        },
        "2": {"tensors": {"weight": [2, 4, 1, 1]}, "attributes": {"in_channels": 4}},
        "3": {"replaced": "Identity"},
    }


def test_what_data_cannot_say_is_refused() -> None:
    with pytest.raises(ValueError, match="0: a ReLU became a GELU"):
        structure_of(nn.Sequential(nn.ReLU()), nn.Sequential(nn.GELU()))
    with pytest.raises(ValueError, match="bias"):
        structure_of(nn.Sequential(nn.Linear(2, 2)), nn.Sequential(nn.Linear(2, 2, bias=False)))


@pytest.mark.parametrize(
    ("structure", "where", "code", "says"),
    [
        ([], "structure", "invalid", "list"),
        ({"0.0": {}}, "structure.0.0", "invalid", "tensors"),
        ({"0.0": {"tensor": {}}}, "structure.0.0", "invalid", "tensors"),
        ({"0.9": {"replaced": "Identity"}}, "structure.0.9", "unknown", ""),
        ({"0.0": {"replaced": "ReLU"}}, "structure.0.0", "unknown", "'ReLU'"),
        ({"0.0": {"tensors": {"wieght": [1]}}}, "structure.0.0", "unknown", "did you mean 'weight'"),
        ({"0.0": {"tensors": {"weight": [8, 3]}}}, "structure.0.0", "mismatch", "(16, 3, 3, 3)"),
        ({"0.0": {"tensors": {"weight": [32, 3, 3, 3]}}}, "structure.0.0", "mismatch", "[32, 3, 3, 3]"),
        ({"0.0": {"tensors": {"weight": [0, 3, 3, 3]}}}, "structure.0.0", "mismatch", "[0, 3, 3, 3]"),
        ({"0.0": {"tensors": {"weight": "big"}}}, "structure.0.0", "mismatch", "big"),
        ({"0.0": {"attributes": {"out_chanels": 8}}}, "structure.0.0", "unknown", "'out_chanels'"),
        ({"0.0": {"values": {"running_mean": [0]}}}, "structure.0.0", "unknown", "'running_mean'"),
        ({"0.0": {"tensors": [1]}}, "structure.0.0", "invalid", "list"),
        ({"0.0": {"attributes": {"_parameters": {}}}}, "structure.0.0", "unknown", "'_parameters'"),
        ({"0.0": {"attributes": {"out_channels": "8"}}}, "structure.0.0", "mismatch", "out_channels"),
    ],
)
def test_damaged_or_foreign_structures_name_the_module(structure: Any, where: str, code: Code, says: str) -> None:
    with user_error(where, code, says=says):
        apply_structure(network("chain"), structure)


def test_a_fresh_process_needs_no_more_than_the_data(tmp_path: Path) -> None:
    """Through JSON and safetensors, without Torch-Pruning."""
    small = shrink(network("transformer"), SHAPE, Target("macs", share=0.6), depth=True)
    x = torch.randn(2, *SHAPE, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        save_file({"x": x, "y": small.model(x)}, tmp_path / "expected.safetensors")
    save_file(small.model.state_dict(), tmp_path / "model.safetensors")
    (tmp_path / "structure.json").write_text(json.dumps(small.structure))
    program = """
import json, sys
sys.path[:0] = sys.argv[2:]
import torch
from pathlib import Path
from safetensors.torch import load_file
from structured_nets import Transformer
from espalier.pruning.structure import apply_structure
folder = Path(sys.argv[1])
model = Transformer().eval()
apply_structure(model, json.loads((folder / "structure.json").read_text()))
model.load_state_dict(load_file(folder / "model.safetensors"), strict=True)
expected = load_file(folder / "expected.safetensors")
with torch.no_grad():
    torch.testing.assert_close(model(expected["x"]), expected["y"])
assert "torch_pruning" not in sys.modules
"""
    paths = [str(Path(__file__).parent), str(Path(__file__).parents[2])]
    subprocess.run([sys.executable, "-c", program, str(tmp_path), *paths], check=True)
