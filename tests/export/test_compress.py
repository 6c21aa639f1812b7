"""ONNX files with many zeros: what is written smaller is the same network once it is loaded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from espalier.export import compress
from espalier.export.compress import smallest_onnx
from espalier.export.devices.agent.session import CPU, open_session
from espalier.export.onnx import export_onnx
from espalier.export.sparse_weights import coo, packed, relative_index
from user_errors import user_error

SHAPE = (3, 8, 8)


def sparse_weight(shape: tuple[int, ...], zeros: int, dtype: Any = np.float32) -> np.ndarray:
    """Random numbers without a zero, of which exactly `zeros` are then set to zero."""
    generator = np.random.default_rng(0)
    weight = (1 + 9 * generator.random(shape)).astype(dtype)
    weight.reshape(-1)[generator.permutation(weight.size)[:zeros]] = 0
    return weight


def weight_model(weight: np.ndarray, opset: int = 17, **graph: Any) -> Any:
    """A network that hands its input on, and its weight beside it."""
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 2]) for name in ("x", "y"))
    kind = helper.np_dtype_to_tensor_dtype(weight.dtype)
    out = helper.make_tensor_value_info("out", kind, list(weight.shape))
    nodes = [helper.make_node("Identity", ["x"], ["y"]), helper.make_node("Identity", ["w"], ["out"])]
    made = helper.make_graph(
        nodes, "g", [x, *graph.get("inputs", [])], [y, out], [numpy_helper.from_array(weight, "w")]
    )
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def loaded_weight(model: Any) -> np.ndarray:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(["out"], {"x": np.zeros((1, 2), np.float32)})[0])


def constants(model: Any) -> dict[str, np.ndarray]:
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}


@pytest.fixture(scope="module")
def pruned(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A convolutional network with three quarters of its weights zero, exported, and the same one dense."""
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, 64, 3, padding=1, bias=False),
        nn.BatchNorm2d(64),
        nn.ReLU(),
        nn.Conv2d(64, 64, 3, groups=2),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(64, 10),
    )
    nn.init.normal_(network[1].bias)
    folder = tmp_path_factory.mktemp("pruned")
    export_onnx(network, SHAPE, folder / "dense.onnx", exporter="torchscript")
    for parameter in network.parameters():
        if parameter.dim() > 1:
            with torch.no_grad():
                parameter.mul_(torch.rand(parameter.shape) > 0.75)  # negative weights become negative zeros
    export_onnx(network, SHAPE, folder / "pruned.onnx", exporter="torchscript")
    return folder / "pruned.onnx", folder / "dense.onnx"


def test_relative_index_by_hand() -> None:
    gaps, values = relative_index(np.array([0, 5, 300, 301, 556, 1067]), np.arange(1.0, 7.0))
    # 300 - 5 = 255 + 40, 556 - 301 = 255 exactly, 1067 - 556 = 255 + 255 + 1
    assert gaps.tolist() == [0, 5, 255, 40, 1, 255, 255, 255, 1]
    assert values.tolist() == [1, 2, 0, 3, 4, 5, 0, 0, 6]
    assert gaps.dtype == np.uint8


@pytest.mark.parametrize("opset", [11, 20])
@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.float64, np.int8, np.uint8])
@pytest.mark.parametrize("zeros", [1500, 2900, 3002, 3003])
def test_a_packed_weight_is_the_weight(zeros: int, dtype: Any, opset: int) -> None:
    weight = sparse_weight((13, 11, 21), zeros, dtype)  # 3003 numbers, no whole number of bytes of bits
    model = packed(weight_model(weight, opset))
    assert model is not None
    onnx.checker.check_model(model, full_check=True)
    assert ("w:mask" in constants(model)) == (zeros == 1500)  # the mask is smaller at a density above 1/8
    got = loaded_weight(model)
    assert got.dtype == dtype
    assert np.array_equal(got, weight)


def test_bytes_of_each_form() -> None:
    n = 80_000
    few, many = sparse_weight((80, 1000), n - 4_000), sparse_weight((80, 1000), n - 40_000)
    gaps = constants(packed(weight_model(few)))
    entries = gaps["w:gaps"].size  # one gap of 255 in 4000 or so is too far at a density of 5 %: .95^255 = 2e-6
    assert 4_000 <= entries <= 4_002
    assert gaps["w:values"].nbytes + gaps["w:gaps"].nbytes == 5 * entries
    mask = constants(packed(weight_model(many)))
    assert mask["w:mask"].nbytes == n // 8
    assert mask["w:values"].nbytes == 4 * 40_001  # the first is the zero
    for weight, least in ((few, 5 * entries), (many, 4 * 40_001 + n // 8)):
        assert least < packed(weight_model(weight)).ByteSize() < least + 1000
    assert coo(weight_model(few)).ByteSize() == pytest.approx(12 * 4_000, abs=200)
    assert coo(weight_model(many)) is None  # 12 bytes for half of the numbers are more than 4 for all


def test_dense_and_tiny_weights_stay() -> None:
    assert packed(weight_model(sparse_weight((80, 100), 100))) is None
    assert packed(weight_model(sparse_weight((5, 5), 20))) is None  # the operators take more than is saved


def test_an_input_with_a_default_stays() -> None:
    weight = sparse_weight((80, 100), 7_900)
    value = helper.make_tensor_value_info("w", TensorProto.FLOAT, [80, 100])
    assert packed(weight_model(weight, inputs=[value])) is None


def test_the_smallest_is_written_and_is_the_same_network(pruned: tuple[Path, Path], tmp_path: Path) -> None:
    source, dense = pruned
    before = source.read_bytes()
    result = smallest_onnx(source, tmp_path / "new" / "small.onnx", dense=dense)
    small = tmp_path / "new" / "small.onnx"
    assert (result.path, result.form) == (str(small), "packed")
    assert source.read_bytes() == before
    assert [path.name for path in small.parent.iterdir()] == ["small.onnx"]
    plain, forms = result.forms["plain"], result.forms
    assert small.stat().st_size == forms["packed"].size_bytes
    assert plain.size_bytes == len(before)
    assert result.dense is not None
    assert result.dense.size_bytes == plain.size_bytes  # zeros take as much as any number
    assert result.dense.gzip_bytes > 0.9 * plain.size_bytes > plain.gzip_bytes
    # 21,760 weights, of which a quarter is left: 4 bytes each, a bit for all, operators for two of them
    assert forms["packed"].size_bytes < 0.45 * plain.size_bytes
    assert forms["packed"].gzip_bytes < forms["packed"].size_bytes
    assert 0.7 < result.zeros / result.numbers < 0.8
    assert json.loads(json.dumps(result.to_dict()))["forms"]["packed"]["refused"] is None

    images = np.random.default_rng(0).standard_normal((5, *SHAPE)).astype(np.float32)
    got, want = (open_session(str(path), 1, CPU).run(None, {"input": images})[0] for path in (small, source))
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)
    smallest_onnx(source, tmp_path / "again.onnx")
    assert (tmp_path / "again.onnx").read_bytes() == small.read_bytes()


def test_the_runtime_takes_sparse_initializers_though_they_are_not_valid(
    pruned: tuple[Path, Path], tmp_path: Path
) -> None:
    sparse = smallest_onnx(pruned[0], tmp_path / "small.onnx").forms["sparse"]
    assert sparse.size_bytes is not None
    assert sparse.refused is not None
    assert sparse.refused.startswith("is not valid ONNX (")
    assert sparse.refused.endswith("though ONNX Runtime loads it")


def test_in_place_and_again(pruned: tuple[Path, Path], tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(pruned[0].read_bytes())
    assert smallest_onnx(path, path).form == "packed"
    once = path.read_bytes()
    again = smallest_onnx(path, path)
    assert (again.form, path.read_bytes()) == ("plain", once)
    assert again.forms["packed"].refused == "no weight becomes smaller"


def test_a_dense_network_stays_as_it_is(pruned: tuple[Path, Path], tmp_path: Path) -> None:
    result = smallest_onnx(pruned[1], tmp_path / "small.onnx")
    assert result.form == "plain"
    assert (tmp_path / "small.onnx").read_bytes() == pruned[1].read_bytes()
    assert [form.refused for form in result.forms.values()] == [None, *["no weight becomes smaller"] * 2]
    assert result.dense is None


def quantised_file(path: Path) -> Path:
    """A convolution with sparse int8 weights, between the pairs of operators that the runtime fuses into one."""
    q = sparse_weight((64, 8, 3, 3), 4000, np.int8)
    arrays = {"w": q, "s": np.float32(0.02), "z": np.int8(0), "sx": np.float32(0.05), "zx": np.uint8(128)}
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "sx", "zx"], ["xq"]),
        helper.make_node("DequantizeLinear", ["xq", "sx", "zx"], ["xd"]),
        helper.make_node("DequantizeLinear", ["w", "s", "z"], ["wd"]),
        helper.make_node("Conv", ["xd", "wd"], ["c"]),
        helper.make_node("QuantizeLinear", ["c", "sx", "zx"], ["cq"]),
        helper.make_node("DequantizeLinear", ["cq", "sx", "zx"], ["y"]),
    ]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, 8, 8, 8])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [2, 64, 6, 6])
    initializers = [numpy_helper.from_array(np.asarray(array), name) for name, array in arrays.items()]
    graph = helper.make_graph(nodes, "g", [x], [y], initializers)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def test_quantised_weights_are_fused_as_before(tmp_path: Path) -> None:
    source = quantised_file(tmp_path / "int8.onnx")
    assert compress._behaviour(source).operators["QLinearConv"] == 1
    result = smallest_onnx(source, tmp_path / "small.onnx")
    assert result.form == "packed"
    assert compress._behaviour(tmp_path / "small.onnx").operators == compress._behaviour(source).operators


def with_other_weights(model: Any) -> Any:
    other = onnx.ModelProto()
    other.CopyFrom(model)
    for index, tensor in enumerate(model.graph.initializer):
        if tensor.data_type == TensorProto.FLOAT and len(tensor.dims) > 1:
            other.graph.initializer[index].CopyFrom(
                numpy_helper.from_array(numpy_helper.to_array(tensor) * np.float32(1.001), tensor.name)
            )
    return other


def with_one_more_operator(model: Any) -> Any:
    other = onnx.ModelProto()
    other.CopyFrom(model)
    other.graph.node[-1].output[0] = "before"
    other.graph.node.append(helper.make_node("Erf", ["before"], [model.graph.output[0].name]))
    return other


def broken(model: Any) -> Any:
    other = onnx.ModelProto()
    other.CopyFrom(model)
    del other.graph.initializer[:]
    return other


@pytest.mark.parametrize(
    ("rewrite", "refused"),
    [
        (with_other_weights, "its outputs differ from the plain file's"),
        (with_one_more_operator, "is loaded to other operators (Erf more than the plain file)"),
        (broken, "cannot be loaded ("),
    ],
)
def test_what_is_not_the_same_network_is_not_taken(
    pruned: tuple[Path, Path], tmp_path: Path, rewrite: Any, refused: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compress, "packed", rewrite)
    result = smallest_onnx(pruned[0], tmp_path / "small.onnx")
    assert result.form == "plain"
    assert str(result.forms["packed"].refused).startswith(refused)
    assert (tmp_path / "small.onnx").read_bytes() == pruned[0].read_bytes()


def test_an_old_file_has_no_packed_form(tmp_path: Path) -> None:
    onnx.save(weight_model(sparse_weight((80, 100), 7_900), opset=10), tmp_path / "old.onnx")
    result = smallest_onnx(tmp_path / "old.onnx", tmp_path / "small.onnx")
    assert result.forms["packed"].size_bytes is None
    assert result.forms["packed"].refused == "the file has opset 10, packing needs 11"


def test_files_that_cannot_be_read(pruned: tuple[Path, Path], tmp_path: Path) -> None:
    with user_error("missing.onnx", "not_found"):
        smallest_onnx(tmp_path / "missing.onnx", tmp_path / "small.onnx")
    (tmp_path / "bad.onnx").write_bytes(b"not ONNX")
    with user_error("bad.onnx", "unreadable"):
        smallest_onnx(tmp_path / "bad.onnx", tmp_path / "small.onnx")
    model = onnx.load(pruned[0])
    onnx.save(model, tmp_path / "split.onnx", save_as_external_data=True, location="weights", size_threshold=0)
    with user_error("split.onnx", "unsupported"):
        smallest_onnx(tmp_path / "split.onnx", tmp_path / "small.onnx")
    assert not (tmp_path / "small.onnx").exists()
