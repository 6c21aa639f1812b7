"""Commands that run code of the user's: one line where it fails, and JSON stays JSON where it prints."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from nas_command import command, refusal

from espalier.export.devices.files import model_files
from espalier.pruning.pruned_model import read_plan
from espalier.testing.errors import user_error

NETWORKS = """
import sys
import torch
from torch import nn

class Talking(nn.Sequential):
    def forward(self, x):
        print("hello from forward")
        return super().forward(x)

class Ending(nn.Sequential):
    def forward(self, x):
        sys.exit(7)

def talking():
    print("hello from the factory")
    return Talking(nn.Flatten(), nn.Linear(64, 10))

def ending():
    return Ending(nn.Flatten(), nn.Linear(64, 10))

def ended():
    sys.exit(7)
"""


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("nets.py").write_text(NETWORKS)


def test_what_a_network_prints_does_not_spoil_json(capsys: pytest.CaptureFixture[str]) -> None:
    command("score", "nets.py:talking", "--scores", "params", "--json")
    out, err = capsys.readouterr()
    assert json.loads(out)
    assert "hello from the factory" in err


@pytest.mark.parametrize("name", ["ended", "ending"])
def test_a_network_that_ends_the_process_is_one_line(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    line = refusal(capsys, "score", f"nets.py:{name}", "--scores", "grad_norm")
    assert "nets.py" in line
    assert "SystemExit" in line


@pytest.mark.parametrize("file", ["../nets.py", "/nets.py", "link.py"])
def test_a_plan_runs_no_file_outside_its_folder(file: str) -> None:
    folder = Path("pruned")
    folder.mkdir()
    (folder / "link.py").symlink_to(Path("nets.py").absolute())
    plan = {
        "format": 1, "factory": f"{file}:ended", "image_shape": [1, 8, 8], "classes": ["a", "b"], "mean": [0.5],
        "std": [0.5], "structure": {}, "zeros": {}, "settings": {}, "groups": [],
    }  # fmt: skip
    (folder / "plan.json").write_text(json.dumps(plan))
    with user_error("pruned/plan.json: factory", "unsupported", says="outside"):
        read_plan(folder)


def test_weights_that_are_a_link_out_of_the_folder_are_not_sent() -> None:
    import onnx
    from onnx import TensorProto, helper

    weight = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[4], data_location=TensorProto.EXTERNAL)
    weight.external_data.add(key="location", value="w.bin")
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [4])
    graph = helper.make_graph([helper.make_node("Identity", ["w"], ["y"])], "g", [], [y], [weight])
    folder = Path("model")
    folder.mkdir()
    (folder / "model.onnx").write_bytes(helper.make_model(graph).SerializeToString())
    Path("secret").write_bytes(bytes(16))
    (folder / "w.bin").symlink_to(Path("secret").absolute())
    with user_error(str(folder / "model.onnx"), "unsupported", says="outside"):
        model_files(folder / "model.onnx")
    assert onnx.load(folder / "model.onnx", load_external_data=False).graph.initializer
