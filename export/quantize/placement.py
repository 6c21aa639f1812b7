"""What ONNX Runtime makes of a quantised file: which products run in 8 bits, and what is added around them."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

from espalier.export.errors import ExportError, reason

INT8 = frozenset(
    (
        *("QLinearConv", "ConvInteger", "QGemm", "QAttention", "QLinearMatMul", "MatMulInteger"),
        *("MatMulIntegerToFloat", "DynamicQuantizeMatMul", "DynamicQuantizeLSTM"),
    )
)
"""Operators that multiply in 8 bits."""
FLOAT = frozenset(
    ("Conv", "FusedConv", "ConvTranspose", "MatMul", "FusedMatMul", "Gemm", "FusedGemm", "LSTM", "GRU", "Attention")
)
"""Operators that multiply in float32."""
CONVERSIONS = frozenset(("QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear"))
REORDERINGS = frozenset(("Transpose", "ReorderInput", "ReorderOutput"))


@dataclass(frozen=True)
class Placement:
    """Numbers of nodes in the network that ONNX Runtime runs.

    Attributes:
        int8: products in 8 bits.
        float32: the operators of products in float32, one for each node.
        conversions: between 8 bits and float32.
        reorderings: of the elements of a tensor.
    """

    int8: int
    float32: tuple[str, ...]
    conversions: int
    reorderings: int

    def __str__(self) -> str:
        count = self.int8 + len(self.float32)
        kept = f" ({', '.join(sorted(set(self.float32)))} in fp32)" if self.float32 else ""
        return (
            f"ONNX Runtime runs {self.int8} of its {count} products in 8 bits{kept}, with {self.conversions} "
            f"conversions to or from 8 bits and {self.reorderings} reorderings"
        )


def placement(path: Path) -> Placement:
    """The placement of a file's operators on the CPU provider of this machine.

    Raises:
        ExportError: ONNX Runtime cannot load the file.
    """
    import onnx
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    with tempfile.TemporaryDirectory() as folder:
        optimized = Path(folder) / "optimized.onnx"
        options.optimized_model_filepath = str(optimized)
        try:
            onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # ONNX Runtime's errors share no base class
            raise ExportError(str(path), f"cannot be loaded ({reason(error)})") from error
        nodes = [node.op_type for node in onnx.load(optimized, load_external_data=False).graph.node]
    return Placement(
        int8=sum(node in INT8 for node in nodes),
        float32=tuple(node for node in nodes if node in FLOAT),
        conversions=sum(node in CONVERSIONS for node in nodes),
        reorderings=sum(node in REORDERINGS for node in nodes),
    )
