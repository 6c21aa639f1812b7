"""Quantised files: scales by hand, ranges of calibration, traps of padding and saturation, what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from espalier.export.errors import ExportError
from espalier.export.onnx import export_onnx
from espalier.export.quantize.calibration import calibrate, calibration_batches
from espalier.export.quantize.forms import METHODS, Method, Quantizer
from espalier.export.quantize.half import as_bfloat16
from espalier.export.quantize.instructions import Int8Scheme, int8_scheme
from espalier.export.quantize.placement import placement
from espalier.export.quantize.running import depends_on_input, outputs
from espalier.export.quantize.source import Source, read_source
from espalier.nas.errors import Code
from espalier.nas.spaces.vit import ViT
from user_errors import user_error

UNSIGNED = Int8Scheme(signed=False, reduce_range=False, reason="")
REDUCED = Int8Scheme(signed=False, reduce_range=True, reason="")
SIGNED = Int8Scheme(signed=True, reduce_range=False, reason="")
WEIGHT = [[1.0, -2.0, 0.5, 0.25], [0.1, 0.2, -0.3, 0.4]]
IMAGES = np.array([[[[-1.0, 0.0], [1.0, 2.0]]], [[[3.0, 0.5], [0.5, 0.5]]]], dtype=np.float32)
"""Two images of 2x2 between -1 and 3."""


def exported(network: nn.Module, shape: tuple[int, int, int], folder: Path) -> Source:
    path = folder / "float.onnx"
    export_onnx(network.eval(), shape, path, exporter="torchscript")
    return read_source(path)


@pytest.fixture
def linear(tmp_path: Path) -> Source:
    """Four pixels to two logits by `WEIGHT`."""
    layer = nn.Linear(4, 2)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor(WEIGHT))
        layer.bias.zero_()
    return exported(nn.Sequential(nn.Flatten(), layer), (1, 2, 2), tmp_path)


@pytest.fixture
def small(tmp_path: Path) -> Source:
    torch.manual_seed(0)
    layers = (
        nn.Conv2d(1, 8, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(128, 64),
        nn.Linear(64, 10),
    )
    return exported(nn.Sequential(*layers), (1, 8, 8), tmp_path)


def pictures(count: int, shape: tuple[int, int, int] = (1, 8, 8)) -> np.ndarray:
    return np.random.default_rng(0).standard_normal((count, *shape)).astype(np.float32)


def written(source: Source, scheme: Int8Scheme, images: np.ndarray, method: Method, **options: Any) -> Path:
    path = source.path.parent / f"{method}.onnx"
    Quantizer(source, scheme, images, source.path.parent, **options).write(method, path)
    return path


class Scales:
    """What a quantised file says of its tensors: scale and zero point of its activations, numbers of its weights.

    Attributes:
        activations: in the order of the graph. weights: the int8 numbers, their scale and zero point, by name.
    """

    def __init__(self, path: Path) -> None:
        graph = onnx.load(path).graph
        constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
        self.activations = [
            (constants[node.input[1]], constants[node.input[2]])
            for node in graph.node
            if node.op_type == "QuantizeLinear"
        ]
        self.weights = [
            tuple(constants[name] for name in node.input)
            for node in graph.node
            if node.op_type == "DequantizeLinear" and node.input[0] in constants
        ]

    @property
    def weight(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Numbers, scale and zero point of the one weight that is a matrix."""
        (found,) = (values for values in self.weights if values[0].ndim == 2)
        return found  # type: ignore[return-value]


@pytest.mark.parametrize(
    ("scheme", "activation", "zero", "weights"),
    [
        # uint8: s = (max - min) / 255, z = round(-min / s) = round(63.75). int8 weights: max |w| / 127.
        (UNSIGNED, 4 / 255, 64, (2 / 127, 0.4 / 127)),
        # Weights of 7 bits, -64 to 64: max |w| / 64.
        (REDUCED, 4 / 255, 64, (2 / 64, 0.4 / 64)),
        # Symmetric int8, -127 to 127: s = max(|min|, max) / 127.
        (SIGNED, 3 / 127, 0, (2 / 127, 0.4 / 127)),
    ],
)
def test_scales_by_hand(
    linear: Source, scheme: Int8Scheme, activation: float, zero: int, weights: tuple[float, float]
) -> None:
    scales = Scales(written(linear, scheme, IMAGES, "int8-minmax"))
    scale, zero_point = scales.activations[0]
    assert float(scale) == pytest.approx(activation, rel=1e-6)
    assert (int(zero_point), zero_point.dtype) == (zero, np.int8 if scheme.signed else np.uint8)
    numbers, scale, zero_point = scales.weight
    assert scale == pytest.approx(np.array(weights), rel=1e-6)
    assert not zero_point.any()
    assert numbers.dtype == np.int8


def test_one_scale_for_a_tensor_is_that_of_its_largest_channel(linear: Source) -> None:
    _, scale, _ = Scales(written(linear, UNSIGNED, IMAGES, "int8-minmax", per_channel=False)).weight
    assert scale.reshape(-1) == pytest.approx([2 / 127], rel=1e-6)


def test_outputs_are_those_of_the_rounded_numbers(linear: Source) -> None:
    path = written(linear, REDUCED, IMAGES, "int8-minmax")
    s, z, w = 4 / 255, 64, np.array([[2 / 64], [0.4 / 64]])
    x = (np.clip(np.round(IMAGES.reshape(2, 4) / s) + z, 0, 255) - z) * s
    y = x @ (np.round(np.array(WEIGHT) / w) * w).T
    got = outputs(path, linear, [IMAGES])
    step, _ = Scales(path).activations[-1]  # the logits are rounded, too
    assert np.abs(got - y).max() <= 0.51 * float(step)


def test_channels_of_unlike_size_need_a_scale_each(tmp_path: Path) -> None:
    torch.manual_seed(0)
    layer = nn.Linear(64, 2)
    with torch.no_grad():
        layer.weight[0] *= 1000
    source = exported(nn.Sequential(nn.Flatten(), layer), (1, 8, 8), tmp_path)
    images = pictures(32)
    each, _, _ = Scales(written(source, REDUCED, images, "int8-minmax")).weight
    alike, _, _ = Scales(written(source, REDUCED, images, "int8-minmax", per_channel=False)).weight
    assert np.abs(each).max(axis=1).tolist() == [64, 64]
    assert np.abs(alike).max(axis=1).tolist() == [64, 0]  # nothing is left of the small channel


def ranges(
    source: Source, images: np.ndarray, method: Any, *, symmetric: bool = False
) -> dict[str, tuple[float, float]]:
    quantizer = Quantizer(source, REDUCED, images, source.path.parent)
    found = calibrate(quantizer.prepared, source, images, method, symmetric=symmetric)
    return {name: tuple(float(np.ravel(v)[0]) for v in found[name].range_value) for name in found.keys()}  # noqa: SIM118


def test_ranges_of_calibration(small: Source) -> None:
    images = pictures(640)
    images[0, 0, 0, 0] = 100.0  # one number far from all others
    low, high = ranges(small, images, "minmax")["input"]
    assert (low, high) == (float(images.min()), 100.0)
    cut = ranges(small, images, "percentile")["input"]
    assert (low <= cut[0] < -3) and (3 < cut[1] < 6)  # of 40,960 numbers two go on each side
    entropy = ranges(small, images, "entropy")["input"]
    assert entropy[1] < 99  # more than one candidate was looked at
    rectified = [
        value for name, value in ranges(small, images, "percentile").items() if "Relu" in name or "relu" in name
    ]
    assert rectified and all(low == 0 < high for low, high in rectified)  # not [-t, t]
    symmetric = ranges(small, images, "percentile", symmetric=True)["input"]
    assert symmetric[0] == -symmetric[1]


def test_entropy_and_percentile_keep_what_is_common(small: Source) -> None:
    """An outlier takes nearly all levels of the whole range, and few of the others'."""
    images = pictures(640)
    images[0, 0, 0, 0] = 100.0
    wanted = outputs(small.path, small, [images[1:]])

    def error(method: Method) -> float:
        got = outputs(written(small, REDUCED, images, method), small, [images[1:]])
        return float(np.sqrt(np.mean((got - wanted) ** 2)) / wanted.std())

    whole = error("int8-minmax")
    assert error("int8-percentile") < whole / 2
    assert error("int8-entropy") < whole


@pytest.mark.parametrize("method", [method for method in METHODS if method != "bf16"])
def test_every_form_computes_nearly_the_same(small: Source, method: Method) -> None:
    images = pictures(32)
    wanted = outputs(small.path, small, [images])
    path = written(small, REDUCED, images, method)
    got = outputs(path, small, [images])
    assert got.shape == wanted.shape
    assert np.abs(got - wanted).max() < {"fp16": 0.01, "int8-entropy": 1.0}.get(method, 0.1) * wanted.std()
    assert path.stat().st_size < 0.75 * small.path.stat().st_size
    model = onnx.load(path)
    (given,) = model.graph.input
    assert (given.name, given.type.tensor_type.elem_type) == ("input", TensorProto.FLOAT)
    assert model.graph.output[0].type.tensor_type.elem_type == TensorProto.FLOAT
    leftover = [path.name for path in small.path.parent.iterdir() if path.name.startswith(".")]
    assert not leftover


def test_weights_of_seven_bits_do_not_saturate(tmp_path: Path) -> None:
    """All products at their largest: 255 * 127 * 2 is more than 16 bits hold, 255 * 64 * 2 is not."""
    layer = nn.Conv2d(16, 8, 1, bias=False)
    nn.init.constant_(layer.weight, 1.0)
    source = exported(nn.Sequential(layer, nn.AdaptiveAvgPool2d(1), nn.Flatten()), (16, 4, 4), tmp_path)
    images = np.ones((2, 16, 4, 4), dtype=np.float32)
    images[1] = 0.5
    got = outputs(written(source, REDUCED, images, "int8-minmax"), source, [images])
    assert got == pytest.approx(np.array([[16.0] * 8, [8.0] * 8]), rel=0.01)


@pytest.mark.parametrize("value", [float("-inf"), -1e6])
def test_padding_is_not_part_of_a_range(tmp_path: Path, value: float) -> None:
    class Padded(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.linear = nn.Conv2d(1, 8, 3), nn.Linear(128, 10)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = nn.functional.pad(self.conv(x), (1, 1, 1, 1), value=value)
            return self.linear(nn.functional.max_pool2d(y, 2).flatten(1))

    torch.manual_seed(0)
    source = exported(Padded(), (1, 8, 8), tmp_path)
    images = pictures(32)
    wanted = outputs(source.path, source, [images])
    padded: tuple[Method, ...] = ("int8-minmax", "int8-percentile")
    for method in padded:
        got = outputs(written(source, REDUCED, images, method), source, [images])
        assert np.abs(got - wanted).max() < 0.2 * wanted.std(), method


def test_of_attention_only_products_are_in_int8(tmp_path: Path) -> None:
    torch.manual_seed(0)
    space = ViT((1, 8, 8), 10, patch=4, embeddings=(16,), ratios=(2,), heads=(2,), depths=(2,), head_size=8)
    network = space.build(space.sample(torch.Generator().manual_seed(0)))
    source = exported(network, (1, 8, 8), tmp_path)
    images = pictures(32)
    wanted = outputs(source.path, source, [images])
    path = written(source, REDUCED, images, "int8-minmax")
    graph = onnx.load(path).graph
    readers = {node.op_type for node in graph.node for name in node.input if name.endswith("DequantizeLinear_Output")}
    assert "MatMul" in readers
    assert "LayerNormalization" not in readers  # the residual stream is in float32
    got = outputs(path, source, [images])
    assert np.sqrt(np.mean((got - wanted) ** 2)) < 0.1 * np.sqrt(np.mean(wanted.std(axis=0) ** 2))


def test_weights_in_bfloat16_are_rounded_to_nearest_even(linear: Source) -> None:
    model = as_bfloat16(onnx.load(linear.path))
    onnx.checker.check_model(model, full_check=True)
    (weight,) = (t for t in model.graph.initializer if list(t.dims) == [2, 4])
    assert weight.data_type == TensorProto.BFLOAT16
    # bfloat16 is the upper half of float32: 0.1 = 0x3DCCCCCD -> 0x3DCD, -0.3 = 0xBE99999A -> 0xBE9A.
    bits = np.frombuffer(weight.raw_data, dtype=np.uint16).reshape(2, 4)
    assert [hex(bit) for bit in bits[1]] == ["0x3dcd", "0x3e4d", "0xbe9a", "0x3ecd"]
    assert model.graph.input[0].type.tensor_type.elem_type == TensorProto.FLOAT


def test_a_fixed_batch_is_kept(small: Source, tmp_path: Path) -> None:
    model = onnx.load(small.path)
    for value in (model.graph.input[0], model.graph.output[0]):
        value.type.tensor_type.shape.dim[0].dim_value = 4
    (tmp_path / "four.onnx").write_bytes(model.SerializeToString())
    source = read_source(tmp_path / "four.onnx")
    assert (source.batch, source.image_shape) == (4, (1, 8, 8))
    images = pictures(10)
    assert [len(batch) for batch in calibration_batches(source, images)] == [4, 4]
    path = written(source, REDUCED, images, "int8-minmax")
    assert onnx.load(path).graph.input[0].type.tensor_type.shape.dim[0].dim_value == 4
    got = outputs(path, source, [images[:4], images[4:8], images[8:]])
    assert got == pytest.approx(outputs(path, source, [images[:4], images[4:8], images[6:]])[[*range(8), 10, 11]])
    with pytest.raises(ExportError, match=r"3 .* 4"):
        written(source, REDUCED, images[:3], "int8-entropy")


def test_nothing_to_calibrate_with(small: Source) -> None:
    with pytest.raises(ExportError, match="0 calibration images"):
        written(small, REDUCED, pictures(0), "int8-minmax")
    assert written(small, REDUCED, pictures(0), "int8-dynamic").is_file()


def test_outputs_that_are_all_equal() -> None:
    assert depends_on_input(np.array([[0.0, 1.0], [0.0, 1.1]]))
    assert not depends_on_input(np.array([[0.0, 1000.0], [0.0, 1000.0 + 1e-4]]))


@pytest.mark.parametrize(
    ("fingerprint", "signed", "reduce_range", "reason"),
    [
        ({"cpu_architecture": "x86_64", "instructions": ["avx2"]}, False, True, "no 8-bit dot products (VNNI)"),
        ({"cpu_architecture": "x86_64", "instructions": ["avx2", "avx512_vnni"]}, False, False, "has AVX-512 VNNI"),
        ({"cpu_architecture": "x86_64", "instructions": ["avx_vnni"]}, False, False, "has AVX-VNNI"),
        ({"cpu_architecture": "x86_64", "instructions": None}, False, True, "not known"),
        ({"cpu_architecture": "aarch64", "instructions": ["asimddp"]}, True, False, "dot-product instructions of ARM"),
        ({"cpu_architecture": "aarch64", "instructions": []}, True, False, "no 8-bit dot products (asimddp)"),
        ({"cpu_architecture": "x86_64", "provider": "TensorrtExecutionProvider"}, True, False, "symmetric int8"),
    ],
)
def test_int8_goes_by_the_instructions(
    fingerprint: dict[str, Any], signed: bool, reduce_range: bool, reason: str
) -> None:
    scheme = int8_scheme(fingerprint)
    assert (scheme.signed, scheme.reduce_range) == (signed, reduce_range)
    assert reason in scheme.reason


def _node(op: str, inputs: list[str], outputs: list[str], **attributes: Any) -> Any:
    return helper.make_node(op, inputs, outputs, **attributes)


def _file(
    path: Path, nodes: list[Any], *, shape: Any = ("n", 1, 8, 8), kind: int = 1, opset: int = 17, **more: Any
) -> Path:
    given = [helper.make_tensor_value_info("x", kind, shape), *more.pop("inputs", [])]
    graph = helper.make_graph(
        nodes, "g", given, [helper.make_tensor_value_info("y", kind, None)], more.pop("weights", [])
    )
    imports = [helper.make_opsetid("", opset), helper.make_opsetid("mine", 1)]
    path.write_bytes(helper.make_model(graph, opset_imports=imports).SerializeToString())
    return path


HALF = numpy_helper.from_array(np.ones(1, dtype=np.float16), "w")
NAN = numpy_helper.from_array(np.array([0, np.nan, 0], dtype=np.float32), "w")
RELU = [_node("Relu", ["x"], ["y"])]


@pytest.mark.parametrize(
    ("nodes", "more", "code", "problem"),
    [
        ([_node("Flash", ["x"], ["y"], domain="mine")], {}, "unsupported", "mine.Flash"),
        ([_node("DynamicQuantizeLinear", ["x"], ["y", "s", "z"])], {}, "unsupported", "DynamicQuantizeLinear"),
        (RELU, {"shape": ("n", 1, "h", None)}, "missing", r"\(h, x\.3\).*--dim h=SIZE --dim x\.3=SIZE"),
        (RELU, {"shape": ("n", 1, 0, 8)}, "unsupported", "1, 0, 8"),
        (RELU, {"shape": (0, 1, 8, 8)}, "unsupported", "0, 1, 8, 8"),
        (RELU, {"shape": ()}, "unsupported", "batch"),
        (RELU, {"kind": TensorProto.FLOAT16}, "unsupported", "float16"),
        (RELU, {"kind": TensorProto.STRING}, "unsupported", "string"),
        (RELU, {"weights": [HALF]}, "unsupported", "'w'"),
        (RELU, {"weights": [NAN]}, "invalid", r"'w'.*NaN.*1 of 3"),
        ([_node("Constant", [], ["c"], value=NAN), *RELU], {}, "invalid", "'w'.*NaN"),
    ],
)
def test_what_cannot_be_quantised_is_refused(
    tmp_path: Path, nodes: list[Any], more: dict[str, Any], code: Code, problem: str
) -> None:
    with pytest.raises(ExportError, match=problem) as caught:
        read_source(_file(tmp_path / "bad.onnx", nodes, **more))
    assert caught.value.code == code


def test_infinity_is_damage_in_weights_but_not_in_masks(tmp_path: Path) -> None:
    mask = numpy_helper.from_array(np.array([0, -np.inf, 0], dtype=np.float32), "w")
    read_source(_file(tmp_path / "mask.onnx", RELU, weights=[mask]))
    weight = numpy_helper.from_array(np.array([0.1, np.inf, 0.3], dtype=np.float32), "w")
    with user_error("bad.onnx", "invalid", says="'w' contains infinity"):
        read_source(_file(tmp_path / "bad.onnx", RELU, weights=[weight]))


def test_what_is_no_network_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "bad.onnx"
    for content, code in ((b"", "unsupported"), (b"hello", "unreadable"), (bytes(100), "unreadable")):
        path.write_bytes(content)
        with pytest.raises(ExportError) as caught:
            read_source(path)
        assert caught.value.code == code
    with pytest.raises(ExportError):
        read_source(tmp_path)


def test_sizes_of_open_dimensions(tmp_path: Path) -> None:
    path = _file(tmp_path / "open.onnx", RELU, shape=("n", 1, "h", None))
    given = read_source(path, dims={"h": 4, "x.3": 6})
    assert (given.image_shape, given.dims, given.batch) == ((1, 4, 6), {"h": 4, "x.3": 6}, None)
    assert read_source(path, shapes={"": (1, 5, 7)}).image_shape == (1, 5, 7)
    assert read_source(path, dims={"h": 4}, shapes={"x": (1, 5, 7)}).image_shape == (1, 4, 7)


def test_the_output_that_is_judged(tmp_path: Path) -> None:
    model = onnx.load(_file(tmp_path / "two.onnx", RELU))
    model.graph.node.append(_node("Neg", ["x"], ["logits"]))
    model.graph.output.append(helper.make_tensor_value_info("logits", 1, None))
    onnx.save(model, tmp_path / "two.onnx")
    assert read_source(tmp_path / "two.onnx").output == "logits"
    assert read_source(tmp_path / "two.onnx", output="y").output == "y"
    assert read_source(tmp_path / "two.onnx", output="1").output == "logits"
    with user_error("outputs", "unknown", nearest="logits"):
        read_source(tmp_path / "two.onnx", output="logit")


def test_what_runs_in_8_bits_is_counted(small: Source) -> None:
    found = placement(written(small, REDUCED, pictures(16), "int8-minmax"))
    assert found.int8 + len(found.float32) == 3
    assert found.conversions >= 2
    assert f"{found.int8} of its 3" in str(found)
    dense = placement(small.path)
    assert (dense.int8, dense.conversions, len(dense.float32)) == (0, 0, 3)


def test_a_file_of_an_old_opset(tmp_path: Path) -> None:
    kernel = np.random.default_rng(0).standard_normal((4, 1, 3, 3)).astype(np.float32)
    nodes = [
        _node("Conv", ["x", "w"], ["c"]),
        _node("Clip", ["c"], ["d"], min=0.0, max=6.0),  # of opset 11 and later, these are inputs
        _node("ReduceMean", ["d"], ["y"], axes=[2, 3], keepdims=0),
    ]
    weights = [numpy_helper.from_array(kernel, "w")]
    source = read_source(_file(tmp_path / "old.onnx", nodes, weights=weights, opset=9))
    images = pictures(32)
    wanted = outputs(source.path, source, [images])
    for method in ("int8-minmax", "int8-dynamic", "fp16"):
        got = outputs(written(source, REDUCED, images, method), source, [images])
        assert np.abs(got - wanted).max() < 0.2 * wanted.std(), method


def test_no_onnx_file_and_one_that_is_quantised(tmp_path: Path, small: Source) -> None:
    (tmp_path / "text.onnx").write_text("nothing of the kind")
    with user_error("text.onnx", "unreadable"):
        read_source(tmp_path / "text.onnx")
    with user_error("absent.onnx", "unreadable"):
        read_source(tmp_path / "absent.onnx")
    with user_error("int8-minmax.onnx", "unsupported"):
        read_source(written(small, REDUCED, pictures(8), "int8-minmax"))


def test_a_form_that_cannot_be_run_says_why(small: Source) -> None:
    path = written(small, REDUCED, pictures(0), "bf16")
    try:
        got = outputs(path, small, [pictures(8)])
    except ExportError as error:
        assert "cannot be run" in error.problem  # by this runtime; a later one may have a kernel
        assert "Conv" in error.problem
    else:
        wanted = outputs(small.path, small, [pictures(8)])
        assert np.abs(got - wanted).max() < 0.1 * wanted.std()
