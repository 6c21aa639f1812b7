"""The forms that a float32 network can be converted to: int8 with static or dynamic scales, float16, bfloat16.

ONNX Runtime's own quantiser writes them. The forms of int8 differ in how activations are scaled: by their range over
calibration images (see `export.quantize.calibration`), or in each run (`int8-dynamic`, which needs no images). No layer
is left in float32: for ResNet-20 the accuracy is the same with the first, the last or both of them in float32.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from espalier.export.errors import ExportError, reason
from espalier.export.finite import check_tensors
from espalier.export.quantize.calibration import CalibrationMethod, calibrate, silence
from espalier.export.quantize.half import as_bfloat16, as_float16, at_opset
from espalier.export.quantize.instructions import Int8Scheme
from espalier.export.quantize.source import Source, Values, length
from espalier.nas.files import atomic_path

Method = Literal["int8-minmax", "int8-entropy", "int8-percentile", "int8-dynamic", "fp16", "bf16"]
METHODS: tuple[Method, ...] = get_args(Method)
MIN_OPSET = 13
"""The first opset in which QuantizeLinear and DequantizeLinear support a scale for each channel."""
PRODUCTS = ("Conv", "MatMul", "Gemm")


class Quantizer:
    """Converts one network to any of the forms.

    Args:
        source: the network.
        scheme: the form of int8 for the device.
        images: calibration images, such as float32 `(n, C, H, W)`, normalised; only forms with calibration need them.
        folder: for temporary files.
        per_channel: use a scale for each output channel of a weight, instead of one for each tensor.
    """

    def __init__(
        self,
        source: Source,
        scheme: Int8Scheme,
        images: Values,
        folder: Path,
        *,
        per_channel: bool = True,
    ) -> None:
        self._source, self._scheme, self._images, self._folder = source, scheme, images, folder
        self._per_channel = per_channel

    def write(self, method: Method, path: Path) -> None:
        """Write the network in a form to `path`, atomically.

        Args:
            method: the form.
            path: the file.

        Raises:
            ExportError: there are no images to calibrate with, or ONNX Runtime's tools fail; their reason is given.
        """
        writers: dict[str, Callable[[Path], None]] = {
            "int8-dynamic": self._dynamic,
            "fp16": lambda temporary: _save(as_float16(_load(self._source.path)), temporary),
            "bf16": lambda temporary: _save(as_bfloat16(_load(self._source.path)), temporary),
        }
        try:
            with atomic_path(path) as temporary, silence():
                if method in writers:
                    writers[method](temporary)
                else:
                    self._static(method.removeprefix("int8-"), temporary)  # type: ignore[arg-type]
                check_tensors(self._source.path, _load(temporary))  # scales, and weights rounded up to infinity
        except ExportError:
            raise
        except Exception as error:  # the tools may raise anything
            raise ExportError(str(self._source.path), f"cannot be written as {method} ({reason(error)})") from error

    @cached_property
    def prepared(self) -> Path:
        """The network as the quantiser needs it: a recent opset, known shapes, folded batch norms, names for all nodes.

        Raises:
            ExportError: ONNX Runtime cannot load it.
        """
        from onnxruntime.quantization import quant_pre_process

        path = self._folder / "prepared.onnx"
        try:
            _save(at_opset(_load(self._source.path), MIN_OPSET), path)
            quant_pre_process(str(path), str(path), skip_symbolic_shape=True)
        except Exception as error:  # ONNX Runtime's errors share no base class
            raise ExportError(str(self._source.path), f"cannot be prepared ({reason(error)})") from error
        model = _load(path)
        for position, node in enumerate(model.graph.node):
            node.name = node.name or f"node_{position}"
        _save(model, path)
        return path

    def _static(self, calibration: CalibrationMethod, path: Path) -> None:
        from onnxruntime.quantization import CalibrationMethod as Named
        from onnxruntime.quantization import QuantFormat, QuantType, quantize_static, save_tensors_data

        if length(self._images) < (self._source.batch or 1):
            least = f"its fixed batch of {self._source.batch}" if self._source.batch else "one"
            problem = f"{length(self._images)} calibration images are fewer than {least}"
            raise ExportError(str(self._source.path), problem, code="too_few")
        signed = self._scheme.signed
        model = _load(self.prepared)
        nodes, tensors = _odd_padding(model)
        ranges = calibrate(self.prepared, self._source, self._images, calibration, symmetric=signed, without=tensors)
        names = {"minmax": Named.MinMax, "entropy": Named.Entropy, "percentile": Named.Percentile}
        with tempfile.TemporaryDirectory(dir=self._folder) as folder:
            cache = Path(folder) / "ranges.json"
            save_tensors_data(ranges, cache)
            quantize_static(
                str(self.prepared),
                str(path),
                quant_format=QuantFormat.QDQ,
                op_types_to_quantize=_types(model),
                per_channel=self._per_channel,
                reduce_range=self._scheme.reduce_range,
                activation_type=QuantType.QInt8 if signed else QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                nodes_to_exclude=nodes,
                calibrate_method=names[calibration],
                calibration_cache_path=str(cache),
                extra_options={"ActivationSymmetric": signed},
            )

    def _dynamic(self, path: Path) -> None:
        from onnxruntime.quantization import QuantType, quantize_dynamic

        # Unsigned: ConvInteger with signed weights takes 5 times as long on a CPU, and products of two unsigned
        # numbers do not saturate on any processor.
        quantize_dynamic(str(self.prepared), str(path), weight_type=QuantType.QUInt8)


def _types(model: Any) -> list[str] | None:
    """Types of operators to quantise; None for all that ONNX Runtime supports.

    For a network with attention only products with weights and of activations: with all operators, the outputs of
    timm's `test_vit` (fresh weights) are off by 1.2 of their spread, with these by 0.09. For convolutional networks
    all, so that values stay in 8 bits from one convolution to the next.
    """
    has_attention = any(node.op_type == "Softmax" for node in model.graph.node)
    return list(PRODUCTS) if has_attention else None


def _odd_padding(model: Any) -> tuple[list[str], list[str]]:
    """Nodes that pad with a value other than 0 and the nodes that read them, and the names of the padded tensors.

    The padding would be part of the calibrated range (minus infinity before a maximum pool, for example) and leave no
    levels for the rest. 0 is part of every range anyway.
    """
    import onnx

    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    padded: set[str] = set()
    nodes: list[str] = []
    for node in model.graph.node:
        if node.op_type == "Pad" and len(node.input) > 2 and node.input[2]:
            value = constants.get(node.input[2])
            if value is None or np.any(onnx.numpy_helper.to_array(value) != 0):
                padded.update(node.output)
                nodes.append(node.name)
        elif padded & set(node.input):
            nodes.append(node.name)
    return nodes, sorted(padded)


def _load(path: Path) -> Any:
    import onnx

    return onnx.load(path)


def _save(model: Any, path: Path) -> None:
    path.write_bytes(model.SerializeToString())
