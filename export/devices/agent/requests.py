"""Whole requests from the bytes of images to the outputs, each step timed. Images are decoded with PIL."""

from __future__ import annotations

import io
import time
from pathlib import Path
from typing import Any, Callable  # noqa: UP035 - Python 3.8

import numpy as np

from espalier.export.devices.agent import counters
from espalier.export.devices.agent.errors import Refused, first_line
from espalier.export.devices.agent.inputs import sized
from espalier.export.devices.agent.rounds import no_garbage_collection, runs_within, warm
from espalier.export.devices.agent.session import open_session, provider_name
from espalier.export.devices.agent.system import default_threads

STEPS = ("decode", "resize", "normalise", "copy in", "inference", "copy out")
_TYPES = {"tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(uint8)": np.uint8}
_MODES = {1: "L", 3: "RGB"}
_DEVICES = {"CUDA": "cuda", "Tensorrt": "cuda", "NvTensorRt": "cuda", "Dml": "dml"}


def time_requests(request: dict[str, Any], alive: Callable[[], None]) -> dict[str, Any]:
    """Time whole requests of `batch` images each, which use the image files after the ONNX file in turn.

    Args:
        request: contains `files` (the network, then the images), `threads` and `provider` (None for the defaults),
            `batch`, and `runs`; None for as many as fit into `milliseconds`, but at least `min_runs`.
        alive: called regularly.

    Raises:
        Refused: PIL is not installed here, an image cannot be read, or the network does not take images.
    """
    path, *images = request["files"]
    threads, provider = request["threads"] or default_threads(), provider_name(request["provider"])
    pipeline = Pipeline(path, images, threads, provider, request)
    pipeline.check_images()
    warm(pipeline.run_once, alive)
    with no_garbage_collection():
        before = counters.read()
        runs = request["runs"] or runs_within([pipeline.run_once], request)
        pipeline.times_ms = {step: [] for step in STEPS}
        for _ in range(runs):
            pipeline.run_once()
            alive()
        counted = counters.since(before)
    return {"runs": runs, "threads": threads, "provider": provider, "counters": counted, "times_ms": pipeline.times_ms}


class Layout:
    """The layout of images that the network in `file` expects, from the description of its only input.

    Attributes:
        name: name of the input.
        height: height of an image.
        width: width of an image.
        channels: channels of an image.

    Raises:
        Refused: its input is not images, or not a batch of `batch`.
    """

    def __init__(self, file: str, arguments: list[Any], batch: int, dims: dict[str, int]) -> None:
        where = f"{file}: input {arguments[0].name!r}"
        if len(arguments) > 1:
            problem = f"has {len(arguments)} inputs, but whole requests need one of images"
            raise Refused(file, problem, code="unsupported")
        self.file, self.name = file, arguments[0].name
        shape = sized(arguments[0], dims)
        if arguments[0].type not in _TYPES:
            raise Refused(where, f"has type {arguments[0].type}", allowed=_TYPES, code="unsupported")
        if len(shape) != 4 or not any(shape[at] in _MODES for at in (1, 3)):
            problem = f"has shape {shape}, which is not that of images with 1 or 3 channels"
            raise Refused(where, problem, code="unsupported")
        self._channels_last = shape[1] not in _MODES
        self._type = _TYPES[arguments[0].type]
        self.channels = shape[3 if self._channels_last else 1]
        self.height, self.width = shape[1:3] if self._channels_last else shape[2:]
        if not isinstance(self.height, int) or not isinstance(self.width, int):
            problem = "its height and width are symbolic, so that images cannot be resized to them"
            raise Refused(where, problem, code="unsupported")
        if isinstance(shape[0], int) and shape[0] != batch:
            raise Refused(where, f"has a fixed batch, {batch} cannot be run", allowed=[shape[0]], code="mismatch")

    def array(self, image: Any) -> np.ndarray:
        """An image in the network's layout: bytes unchanged, floats from -1 to 1. The values do not affect the time."""
        pixels = np.asarray(image)
        if self.channels == 1:
            pixels = pixels[:, :, None]
        if self._type is not np.uint8:
            pixels = ((pixels.astype(np.float32) / 255 - 0.5) / 0.5).astype(self._type)
        return pixels if self._channels_last else pixels.transpose(2, 0, 1)


class Pipeline:
    """A request from bytes to outputs.

    Attributes:
        times_ms: for each step, its time in each run so far.
    """

    def __init__(self, path: str, images: list[str], threads: int, provider: str, request: dict[str, Any]) -> None:
        self._pil = _pil()
        self._session = open_session(path, threads, provider)
        self._layout = Layout(path, self._session.get_inputs(), request["batch"], request["dims"])
        self._names = images
        self._encoded = [Path(image).read_bytes() for image in images]
        self._batch = request["batch"]
        self._next = 0
        self._device = next((kind for name, kind in _DEVICES.items() if provider.startswith(name)), "cpu")
        self.times_ms: dict[str, list[float]] = {step: [] for step in STEPS}

    def check_images(self) -> None:
        """Decode all images once.

        Raises:
            Refused: an image cannot be read.
        """
        for name, encoded in zip(self._names, self._encoded):  # noqa: B905 - Python 3.8
            try:
                self._decode(encoded)
            except (OSError, SyntaxError, ValueError) as error:  # PIL raises all of them for damaged files
                unknown = type(error).__name__ == "UnidentifiedImageError"  # its message names an object in memory
                problem = f"cannot be read as an image ({'its format is unknown' if unknown else first_line(error)})"
                raise Refused(name, problem, code="unreadable") from error

    def run_once(self) -> None:
        """Run one request and record the times of its steps."""
        import onnxruntime

        layout = self._layout
        chosen = [self._encoded[(self._next + i) % len(self._encoded)] for i in range(self._batch)]
        self._next += self._batch
        marks = [time.perf_counter_ns()]

        def mark() -> None:
            marks.append(time.perf_counter_ns())

        decoded = [self._decode(encoded) for encoded in chosen]
        mark()
        resized = [image.resize((layout.width, layout.height), self._pil.BILINEAR) for image in decoded]
        mark()
        arrays = [layout.array(image) for image in resized]
        mark()
        binding = self._session.io_binding()
        array = np.stack(arrays)
        value = onnxruntime.OrtValue.ortvalue_from_numpy(array, self._device, 0)
        binding.bind_ortvalue_input(layout.name, value)
        for output in self._session.get_outputs():
            binding.bind_output(output.name, self._device)
        mark()
        try:
            self._session.run_with_iobinding(binding)
            binding.synchronize_outputs()
        except Exception as error:
            problem = f"cannot be run with these images ({first_line(error)})"
            raise Refused(layout.file, problem, code="failed") from error
        mark()
        binding.copy_outputs_to_cpu()
        mark()
        for step, begin, end in zip(STEPS, marks, marks[1:]):  # noqa: B905 - Python 3.8
            self.times_ms[step].append((end - begin) / 1e6)

    def _decode(self, encoded: bytes) -> Any:
        return self._pil.open(io.BytesIO(encoded)).convert(_MODES[self._layout.channels])


def _pil() -> Any:
    """The module PIL.Image.

    Raises:
        Refused: it is not installed here.
    """
    try:
        import PIL.Image
    except ImportError as error:
        problem = f"cannot be imported on the device, but is needed to decode images ({first_line(error)})"
        raise Refused("PIL", problem, code="unavailable") from error
    return PIL.Image
