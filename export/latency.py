"""The latency of an architecture before training: its network with random weights, exported and timed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from espalier.export.devices.base import Device, MeasureSpec
from espalier.export.onnx import export_onnx
from espalier.nas.architecture import Architecture
from espalier.nas.measurement import Measurement
from espalier.nas.scratch import ScratchFolder
from espalier.nas.space import SearchSpace


class MeasuredLatency:
    """Times architectures of a space on a device. The time does not depend on weights, so random ones are used.

    The file is written by the quick exporter, and deleted after timing.

    Args:
        space: builds the networks.
        device: returns the device that runs them; called when it is first needed.
        folder: folder for the temporary file.
    """

    def __init__(self, space: SearchSpace, device: Callable[[], Device], folder: Path) -> None:
        self._space = space
        self._device = device
        self._folder = folder

    def __call__(self, architecture: Architecture, spec: MeasureSpec) -> Measurement:
        """The measured latency of the stand-alone network.

        Raises:
            UserError: it cannot be exported or run.
        """
        with ScratchFolder(prefix=".latency-", dir=self._folder) as folder:
            path = Path(folder) / "model.onnx"
            export_onnx(self._space.build(architecture), self._space.input_shape, path, exporter="torchscript")
            return self._device().measure(path, spec)
