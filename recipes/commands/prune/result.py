"""What `prune` returns and writes to `result.json`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter, ValidationError

from espalier.export.onnx import Exporter
from espalier.export.parity import Parity
from espalier.nas.errors import UserError
from espalier.nas.files import read_json
from espalier.nas.measurement import Measurement
from espalier.pruning.pruned_model import load_pruned
from espalier.pruning.semi_structured import SemiStructured
from espalier.recipes.inputs.task_score import Score

if TYPE_CHECKING:
    from torch import nn

RESULT = "result.json"
"""The file of the output folder."""


@dataclass(frozen=True)
class NetworkFacts:
    """The size and the quality of a network.

    Attributes:
        params: all parameters.
        prunable: weights that may become zero.
        zeros: how many of them are.
        macs: multiply-accumulates for one image.
        macs_without_zeros: those whose weight is not zero.
        weights_bytes: size of the safetensors file.
        weights_bytes_gzip: the same after gzip.
        onnx_bytes: size of the ONNX file in its smallest form.
        onnx_bytes_gzip: the same after gzip.
        score: on the test images; None where there are none.
        left_out: type of each layer whose weights were never candidates, by its name.
    """

    params: int
    prunable: int
    zeros: int
    macs: int
    macs_without_zeros: int
    weights_bytes: int
    weights_bytes_gzip: int
    onnx_bytes: int | None
    onnx_bytes_gzip: int | None
    score: Score | None
    left_out: Mapping[str, str]


@dataclass(frozen=True)
class LatencyChange:
    """Both networks, timed in turns.

    Attributes:
        before: of the dense network.
        after: of the pruned one.
        ratio: the median over rounds of time after / time before.
        ratio_ci95: its 95 % bootstrap interval, rounds resampled.
        ratios: of each round.
        faster: whether the pruned network is; None if the interval contains 1.
    """

    before: Measurement
    after: Measurement
    ratio: float
    ratio_ci95: tuple[float, float]
    ratios: tuple[float, ...]
    faster: bool | None


@dataclass(frozen=True)
class OnnxFile:
    """How `model.onnx` was written; see `espalier.export.onnx.Exported` and `espalier.export.compress.Compressed`."""

    exporter: Exporter
    opset: int
    parity: Parity
    compressed: Mapping[str, Any]


@dataclass(frozen=True)
class PruneResult:
    """A pruned network, compared with the dense one.

    Attributes:
        target: what was asked for, such as `macs=0.5`.
        method: that chose what goes.
        before: facts of the dense network.
        after: facts of the pruned network.
        latency: of both.
        sparse_tensor_cores: time of a 2:4 pattern on a GPU; None for other patterns.
        onnx: how `model.onnx` was written.
        folder: with `model.onnx`, `model.safetensors`, `plan.json`, `result.json` and `README.md`.
    """

    target: str
    method: str
    before: NetworkFacts
    after: NetworkFacts
    latency: LatencyChange
    sparse_tensor_cores: SemiStructured | None
    onnx: OnnxFile
    folder: Path = Path()

    def load(self) -> nn.Module:
        """The pruned network, on the CPU in evaluation mode."""
        return load_pruned(self.folder)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types, as `result.json` holds them: all but the folder."""
        found = asdict(self)
        del found["folder"]
        return found


def read_result(folder: Path) -> PruneResult:
    """The result of an earlier pruning.

    Raises:
        UserError: `result.json` is damaged.
    """
    try:
        found = TypeAdapter(PruneResult).validate_python(read_json(folder / RESULT))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        problem = f"{'.'.join(map(str, first['loc']))}: {first['msg'].lower()}"
        raise UserError(
            str(folder / RESULT), f"is not the result of a pruning ({problem})", code="unreadable"
        ) from error
    return replace(found, folder=folder)
