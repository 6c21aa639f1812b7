from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from small_networks import SHAPE
from torch import fx

from espalier.export.bundle import write_bundle
from espalier.nas.errors import Code
from user_errors import user_error

CLASSES = ("cat", "dog", "straße", "d|e", "fox")
FRESH = """
import sys
for name in ("nas", "supernets", "predictors", "pruning", "export", "recipes"):
    sys.modules[name] = None  # importing it is an error
import numpy, torch
folder = sys.argv[1]
sys.path.insert(0, folder)
from model import Network; from safetensors.torch import load_file
network = Network().eval()
network.load_state_dict(load_file(folder + "/model.safetensors"))
images = torch.from_numpy(numpy.load(folder + "/images.npy"))
numpy.save(folder + "/torch.npy", network(images).detach().numpy())
import onnxruntime
session = onnxruntime.InferenceSession(folder + "/model.onnx")
numpy.save(folder + "/onnx.npy", session.run(["logits"], {"input": images.numpy()})[0])
"""


def test_a_fresh_process_gets_the_same_logits(network: fx.GraphModule, tmp_path: Path) -> None:
    network.train()
    exported = write_bundle(
        tmp_path,
        network,
        input_shape=SHAPE,
        classes=CLASSES,
        mean=(0.5, 0.4, 0.3),
        std=(0.2, 0.2, 0.1),
        facts={"accuracy (test split)": 0.75},
    )
    assert network.training
    assert sorted(p.name for p in tmp_path.iterdir()) == ["README.md", "model.onnx", "model.py", "model.safetensors"]
    images = torch.randn(3, *SHAPE)
    np.save(tmp_path / "images.npy", images.numpy())
    command = [sys.executable, "-I", "-c", FRESH, str(tmp_path)]
    process = subprocess.run(command, cwd="/", capture_output=True, text=True, check=False)
    assert process.returncode == 0, process.stderr
    with torch.no_grad():
        expected = network.eval()(images).numpy()
    np.testing.assert_allclose(np.load(tmp_path / "torch.npy"), expected, atol=1e-6)
    np.testing.assert_allclose(np.load(tmp_path / "onnx.npy"), expected, atol=exported.parity.tolerance)

    with safe_open(tmp_path / "model.safetensors", "pt") as weights:
        metadata = weights.metadata()
    assert json.loads(metadata["classes"]) == list(CLASSES)
    assert json.loads(metadata["std"]) == [0.2, 0.2, 0.1]
    card = (tmp_path / "README.md").read_text()
    # 4·3·9 convolution weights, 4 + 4 of the norm, 4·5 + 5 of the head
    assert "| params | 141 |" in card
    assert "| accuracy (test split) | 0.75 |" in card
    assert "2. straße" in card


@pytest.mark.parametrize(
    ("key", "value", "code"),
    [
        ("classes", ("one",), "mismatch"),
        ("mean", (0.5,), "invalid"),
        ("mean", (0.5, 0.5, float("nan")), "invalid"),
        ("std", (0.0, 1.0, 1.0), "out_of_range"),
    ],
)
def test_what_does_not_fit_the_network_is_refused(
    network: fx.GraphModule, tmp_path: Path, key: str, value: tuple[float, ...], code: Code
) -> None:
    arguments: dict[str, object] = {"classes": CLASSES, "mean": (0.5,) * 3, "std": (0.2,) * 3, key: value}
    with user_error(key, code):
        write_bundle(tmp_path, network, input_shape=SHAPE, facts={}, **arguments)  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []
