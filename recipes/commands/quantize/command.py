"""`nas quantize`: every form of a network, judged on the same test images, timed in turns, and the winner kept."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from espalier.export.comparison import compare
from espalier.export.devices.address import open_device
from espalier.export.devices.base import Device
from espalier.export.onnx import export_onnx
from espalier.export.quantize.forms import Method, Quantizer
from espalier.export.quantize.running import BATCH, depends_on_input, outputs
from espalier.export.quantize.source import Source, read_source
from espalier.nas.data import Normalisation
from espalier.nas.errors import CannotWrite, UserError
from espalier.nas.files import write_bytes, write_json, write_text
from espalier.nas.intervals import Proportion
from espalier.nas.paired import PairedDrop
from espalier.nas.progress import Track
from espalier.nas.run import RunFolder
from espalier.recipes.commands.quantize.decision import FP32, Form, chosen, objection
from espalier.recipes.commands.quantize.table import model_card
from espalier.recipes.config.quantize_settings import QuantizeSettings
from espalier.recipes.engine.int8_scheme import scheme_on
from espalier.recipes.inputs.calibration import NormalisedImages, QuantizationImages
from espalier.recipes.inputs.model_source import Given, given_network
from espalier.recipes.inputs.task_data import outputs_of

ONNX = "model.onnx"
RESULT = "result.json"


@dataclass(frozen=True)
class Request:
    """What to quantise, and how.

    Attributes:
        file: an ONNX file; None where it is to be made.
        given: the network, or what stands beside the file.
    """

    file: Path | None
    given: Given | None
    settings: QuantizeSettings


def request_for(model: str, settings: QuantizeSettings, *, weights: Path | None, pretrained: bool) -> Request:
    """What the argument MODEL means: an ONNX file, or a network as `nas prune` takes it.

    Raises:
        UserError: neither of them, or weights given for an ONNX file.
    """
    path = Path(model)
    if path.suffix != ".onnx":
        return Request(None, given_network(model, weights=weights, pretrained=pretrained), settings)
    for option, value in (("--weights", weights), ("--pretrained", pretrained or None)):
        if value is not None:
            raise UserError(option, f"{model} has its own weights")
    beside = path.parent / "model.safetensors"  # written by a run or a pruning, with the normalisation of the images
    return Request(path, given_network(str(beside)) if beside.is_file() else None, settings)


def quantize_network(
    request: Request, output: Path, *, track: Track, announce: Callable[[str], None]
) -> dict[str, Any]:
    """Write, judge and time every form, keep the winner as `model.onnx`, and write down why.

    Returns:
        What `result.json` of the folder holds.

    Raises:
        UserError: bad input of any kind. What is wrong with one form is said of it, and the others go on.
    """
    settings, given = request.settings, request.given
    normalisation = None
    if given is not None and given.mean is not None and given.std is not None:
        normalisation = Normalisation(given.mean, given.std)
    images = QuantizationImages(settings, normalisation)
    with RunFolder(output).lock() as folder, tempfile.TemporaryDirectory(prefix=".latency-", dir=output) as temporary:
        if any(not path.name.startswith(".") for path in output.iterdir()):
            raise UserError(str(output), "is not empty")
        work = Path(temporary)
        source = _source(request, images, work, announce)
        with closing(open_device(settings.profile.device, where="profile.device")) as device:
            trial = Trial(source, settings, images, device, work)
            forms = [trial.float32]
            for method in track(settings.methods, "quantize", len(settings.methods)):
                forms.append(trial.form(method))
        best = chosen(forms)
        write_bytes(folder / ONNX, trial.file(best).read_bytes())
        if settings.keep_all:
            for form in forms:
                if form.size_bytes is not None:
                    write_bytes(folder / f"{form.name}.onnx", trial.file(form.name).read_bytes())
        result = {
            "kept": best,
            "max_drop": settings.max_drop,
            "calibration_images": len(trial.calibration),
            "int8": vars(trial.scheme),
            "environment": trial.environment,
            "test_images": len(trial.test.labels),
            "forms": [form.to_dict() for form in forms],
        }
        write_json(folder / RESULT, result)
        write_text(folder / "README.md", model_card(result, source, *images.normalisation))
    return result


def _source(request: Request, images: QuantizationImages, work: Path, announce: Callable[[str], None]) -> Source:
    """The float32 file, which is checked or made."""
    path, given, shape = request.file, request.given, images.splits.image_shape
    if path is None:
        assert given is not None
        if given.is_fresh:
            announce("MODEL has fresh weights (no --weights, no --pretrained): its accuracy is that of chance")
        with torch.random.fork_rng():
            torch.manual_seed(request.settings.seed)
            network = given.make(shape, len(images.splits.classes))
        outputs_of(network, shape)
        path = work / f"{FP32}.onnx"
        export_onnx(network, shape, path)
    source = read_source(path)
    if source.image_shape != shape:
        wanted, has = ("x".join(map(str, size)) for size in (source.image_shape, shape))
        raise UserError("--data", f"has images of {has}, {path} takes {wanted}")
    return source


class Trial:
    """The forms of one network, each written, judged and timed against float32.

    Args:
        source: the network.
        settings: of the command.
        images: to calibrate and to judge with.
        device: times them.
        work: folder for the files.

    Attributes:
        float32: what is known of the network itself.
        calibration: images.
        test: images.
        scheme: how int8 is written.
        environment: the fingerprint of the device.
    """

    def __init__(
        self, source: Source, settings: QuantizeSettings, images: QuantizationImages, device: Device, work: Path
    ) -> None:
        self._source, self._settings, self._device, self._work = source, settings, device, work
        profile = settings.profile
        self.environment = device.fingerprint(profile.provider)
        self.scheme = scheme_on(device, profile.provider)
        self._spec = profile.spec(batch=source.batch or profile.batch, sessions=settings.rounds)
        self.calibration = images.calibration()
        self.test, self._held_back = images.test(), images.held_back()
        self._logits = self._outputs(source.path, self.test)
        classes = len(images.splits.classes)
        if self._logits.shape[1:] != (classes,):
            raise UserError("MODEL", f"gives outputs {self._logits.shape[1:]} for an image, must give ({classes},)")
        self._right = self._logits.argmax(axis=1) == self.test.labels
        self.float32 = Form(
            FP32,
            size_bytes=source.path.stat().st_size,
            accuracy=Proportion.of(float(self._right.mean()), len(self._right)),
            held_back=self._accuracy_held_back(source.path),
        )
        self._quantizer = Quantizer(source, self.scheme, self.calibration, work, per_channel=settings.per_channel)

    def file(self, name: str) -> Path:
        """The file of a form."""
        return self._source.path if name == FP32 else self._work / f"{name}.onnx"

    def form(self, method: Method) -> Form:
        """One form; whatever is wrong with it is the reason why it is refused.

        Raises:
            CannotWrite: the disk is full.
        """
        form = Form(method)
        try:
            self._quantizer.write(method, self.file(method))
            form = replace(form, size_bytes=self.file(method).stat().st_size)
            form = self._judged(form)
            return form if form.refused else self._timed(form)
        except CannotWrite:
            raise
        except UserError as error:  # of the writer, of ONNX Runtime here, or of the device
            return replace(form, refused=error.problem)

    def _judged(self, form: Form) -> Form:
        """With accuracy and drop on the test images."""
        logits = self._outputs(self.file(form.name), self.test)
        if not np.isfinite(logits).all():
            return replace(form, refused="its outputs are not finite")
        if not depends_on_input(logits) and depends_on_input(self._logits):
            return replace(form, refused="quantisation destroys the network: its outputs are equal for all images")
        right = logits.argmax(axis=1) == self.test.labels
        spread = float(np.sqrt(np.mean(self._logits.std(axis=0) ** 2)))
        return replace(
            form,
            accuracy=Proportion.of(float(right.mean()), len(right)),
            drop=PairedDrop.of(self._right, right),
            held_back=self._accuracy_held_back(self.file(form.name)),
            error=float(np.sqrt(np.mean((logits - self._logits) ** 2))) / spread if spread else None,
            agreement=float((logits.argmax(axis=1) == self._logits.argmax(axis=1)).mean()),
        )

    def _timed(self, form: Form) -> Form:
        """With its time on the device, and what is to be said against it."""
        assert form.drop is not None
        timed = compare(self._device, [self.file(FP32), self.file(form.name)], self._spec).others[0]
        cause = self.scheme.reason if form.name.startswith("int8") else half_cause(form.name, self.environment)
        problem = objection(form.drop, timed, max_drop=self._settings.max_drop, cause=cause)
        return replace(form, timed=timed, refused=problem)

    def _accuracy_held_back(self, path: Path) -> float:
        logits = self._outputs(path, self._held_back)
        return float((logits.argmax(axis=1) == self._held_back.labels).mean())

    def _outputs(self, path: Path, images: NormalisedImages) -> np.ndarray:
        provider = self.environment.get("provider") or "CPUExecutionProvider"
        return outputs(path, self._source, images.batches(self._source.batch or BATCH), provider)


def half_cause(name: str, environment: dict[str, Any]) -> str:
    """Why 16 bits may be no gain on a device."""
    if environment.get("provider") == "CPUExecutionProvider" and "asimdhp" not in (
        environment.get("instructions") or ()
    ):
        return f"on this processor numbers of {name} are converted to fp32 around each operator"
    return "this provider computes it no faster"
