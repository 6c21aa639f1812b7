"""`nas quantize` and `nas profile` of networks whose inputs are no images, and of files with open dimensions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from nas_command import nas_here, refusal
from torch import Tensor, nn

from espalier.recipes.commands.quantize.result import QuantizeResult

OWN = """
import torch
from torch import nn


class Words(nn.Module):
    def __init__(self):
        super().__init__()
        self.words, self.hidden, self.out = nn.Embedding(32, 16), nn.Linear(16, 32), nn.Linear(32, 3)

    def forward(self, ids, mask):
        y = (self.words(ids) * mask.unsqueeze(-1)).mean(1)
        return {"logits": self.out(torch.relu(self.hidden(y))), "hidden": y}


class Audio(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Conv1d(1, 8, 9, 4), nn.ReLU(), nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(8, 4))
"""
QUICK = ("profile.seconds=0.05", "--threads", 1, "--methods", "int8-minmax,int8-dynamic,fp16")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "own.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def words(path: Path) -> Path:
    """A classifier of token ids with an open length."""
    from onnx import TensorProto, helper, numpy_helper

    rng = np.random.default_rng(0)
    table, weight = (rng.standard_normal(size).astype(np.float32) for size in ((32, 16), (16, 3)))
    nodes = [
        helper.make_node("Gather", ["table", "ids"], ["words"]),
        helper.make_node("ReduceMean", ["words"], ["mean"], axes=[1], keepdims=0),
        helper.make_node("MatMul", ["mean", "weight"], ["logits"]),
    ]
    given = [helper.make_tensor_value_info("ids", TensorProto.INT64, ["batch", "sequence"])]
    returned = [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 3])]
    tensors = [numpy_helper.from_array(table, "table"), numpy_helper.from_array(weight, "weight")]
    graph = helper.make_graph(nodes, "g", given, returned, tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path.write_bytes(model.SerializeToString())
    return path


def result(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "result.json").read_text())
    return found


def test_sizes_come_from_the_data(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rng = np.random.default_rng(0)
    np.savez(folder / "tokens.npz", ids=rng.integers(0, 32, (60, 12)), labels=rng.integers(0, 3, 60))
    words(folder / "words.onnx")
    answer = nas_here(capsys, "quantize", "words.onnx", "-o", "q", "--data", "tokens.npz", *QUICK)
    assert answer.code == 0, answer.err
    found = result(folder / "q")
    assert (found["test_images"], found["calibration_images"]) == (6, 48)
    assert all(form["size_bytes"] for form in found["forms"])
    assert "ids:12:int64" in (folder / "q" / "README.md").read_text()


def test_without_data_forms_are_compared_on_generated_inputs(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words(folder / "words.onnx")
    assert "--dim sequence=SIZE" in refusal(capsys, "quantize", "words.onnx", "-o", "q", *QUICK)
    answer = nas_here(capsys, "quantize", "words.onnx", "-o", "r", "--dim", "sequence=9", *QUICK)
    assert answer.code == 0, answer.err
    forms = {form["name"]: form for form in result(folder / "r")["forms"]}
    assert forms["fp32"]["accuracy"]["value"] == 1  # against itself: there are no labels
    assert "0 calibration" in forms["int8-minmax"]["refused"]
    assert forms["int8-dynamic"]["accuracy"] is not None


def test_a_network_with_named_inputs(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    inputs = ("--input", "ids:7:int64", "--input", "mask:7:float32")
    answer = nas_here(capsys, "quantize", "own.py:Words", "-o", "q", *inputs, *QUICK)
    assert answer.code == 0, answer.err
    graph = onnx.load(folder / "q" / "model.onnx").graph
    assert {value.name for value in graph.input} == {"ids", "mask"}


def test_audio(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rng = np.random.default_rng(0)
    np.savez(folder / "audio.npz", input=rng.standard_normal((40, 1, 400)), labels=rng.integers(0, 4, 40))
    arguments = ("quantize", "own.py:Audio", "-o", "q", "--input-shape", "1x400", "--data", "audio.npz")
    answer = nas_here(capsys, *arguments, *QUICK)
    assert answer.code == 0, answer.err
    assert result(folder / "q")["calibration_images"] == 32


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_images_of_any_size(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    class Any(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(1, 10, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.conv(x).mean((2, 3))

    axes = {"x": {0: "n", 2: "h", 3: "w"}}
    torch.onnx.export(
        Any().eval(), (torch.zeros(2, 1, 8, 8),), "any.onnx", dynamo=False, input_names=["x"], dynamic_axes=axes
    )
    answer = nas_here(capsys, "quantize", "any.onnx", "-o", "q", "data.limit=200", *QUICK)  # digits are 8x8
    assert answer.code == 0, answer.err
    assert "--dim h=SIZE --dim w=SIZE" in refusal(capsys, "profile", "any.onnx")
    sizes = ("--dim", "h=8", "--dim", "w=9", "--sessions", 2, "--seconds", 0.02)
    assert nas_here(capsys, "profile", "any.onnx", *sizes).code == 0


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("own.py:Words", "--input", "ids"), "name:shape:dtype"),
        (("own.py:Words", "--input", "ids:7:int63"), "int64"),
        (("own.py:Words", "--input", "ids:7", "--input", "ids:7"), "twice"),
        (("own.py:Words", "--input", "ids:99999999x99999999"), "at most"),
        (("own.py:Words", "--input", "ids:7", "--input-shape", "7"), "--input"),
        (("own.py:Audio", "--input-shape", "1x0"), "1x16000"),
        (("own.py:Audio", "--input-shape", "1x400", "--data", "own.py"), ".npz"),
        (("own.py:Audio", "--input-shape", "1x400", "--data", "missing.npz"), "missing.npz"),
        (("own.py:Audio", "--input-shape", "1x400", "--data", "other.npz"), "'input'"),
        (("own.py:Audio", "--input-shape", "1x400", "--data", "short.npz"), "(1, 400)"),
        (("own.py:Audio", "--input-shape", "1x400", "--data", "nan.npz"), "NaN"),
        (("own.py:Audio", "--input-shape", "1x400", "--data", "uneven.npz"), "lengths"),
        (("own.py:Audio", "--input-shape", "1x400", "--data", "labels.npz"), "labels up to 9"),
        (("own.py:Audio", "--input-shape", "1x400", "--data", "bad.npz"), "NumPy"),
        (("own.py:Audio", "--input-shape", "1x2"), "own.py"),
        (("own.py:Audio", "--input-shape", "1x400", "--dim", "n=3"), "ONNX"),
    ],
)
def test_what_does_not_fit_is_refused(
    arguments: tuple[str, ...], says: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    audio = np.zeros((9, 1, 400), dtype=np.float32)
    arrays: dict[str, dict[str, Any]] = {
        "other": {"x": audio},
        "short": {"input": audio[:, :, :9]},
        "nan": {"input": audio + np.nan},
        "uneven": {"input": audio, "labels": np.zeros(8, dtype=np.int64)},
        "labels": {"input": audio, "labels": np.full(9, 9)},
    }
    for name, values in arrays.items():
        np.savez(folder / f"{name}.npz", **values)
    (folder / "bad.npz").write_bytes(b"PK")
    if says == "own.py":
        says = "cannot be exported"
    assert says in refusal(capsys, "quantize", *arguments, "-o", "q", *QUICK)


def test_outputs_that_are_not_finite_name_the_tensor(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from onnx import TensorProto, helper

    nodes = [helper.make_node("Sqrt", ["minus"], ["root"]), helper.make_node("Neg", ["square"], ["minus"])]
    nodes = [
        helper.make_node("Mul", ["x", "x"], ["square"]),
        nodes[1],
        nodes[0],
        helper.make_node("Relu", ["root"], ["y"]),
    ]
    given, returned = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 3]) for name in "xy")
    graph = helper.make_graph(nodes, "g", [given], [returned])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    (folder / "nan.onnx").write_bytes(model.SerializeToString())
    assert "root (Sqrt)" in refusal(capsys, "quantize", "nan.onnx", "-o", "q", *QUICK)


def test_the_python_interface(folder: Path) -> None:
    import espalier
    from espalier.nas.network_inputs import Input

    found = espalier.quantize(
        nn.Sequential(nn.Linear(6, 3)), "q", inputs=[Input("input", (6,))], methods=["fp16"],
        overrides={"profile.seconds": 0.05, "profile.threads": 1},
    )  # fmt: skip
    assert isinstance(found, QuantizeResult)
