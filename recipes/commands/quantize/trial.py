"""The forms of one network, each written, tested and timed against float32."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from espalier.export.comparison import compare
from espalier.export.devices.base import Device
from espalier.export.quantize.forms import Method, Quantizer
from espalier.export.quantize.running import BATCH, depends_on_input, outputs
from espalier.export.quantize.source import Source
from espalier.nas.errors import CannotWrite, UserError
from espalier.nas.intervals import Proportion
from espalier.nas.paired import PairedDrop
from espalier.recipes.commands.quantize.decision import FP32, Form, objection
from espalier.recipes.config.quantize_settings import QuantizeSettings
from espalier.recipes.engine.int8_scheme import scheme_on
from espalier.recipes.inputs.calibration import NormalisedImages, QuantizationImages


class Trial:
    """The forms of one network.

    Args:
        source: the network.
        settings: of the command.
        images: to calibrate and to test with.
        device: times the forms.
        work: folder for the files.

    Attributes:
        float32: what is known of the network itself.
        calibration: images.
        test: images.
        scheme: how int8 is written.
        environment: the fingerprint of the device.

    Raises:
        UserError: the network does not classify the images.
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
            problem = f"returns outputs {self._logits.shape[1:]} for an image, must return ({classes},)"
            raise UserError("model", problem, code="mismatch")
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
        """One form; whatever is wrong with it is the reason why it is rejected.

        Raises:
            CannotWrite: the disk is full.
        """
        form = Form(method)
        try:
            self._quantizer.write(method, self.file(method))
            form = replace(form, size_bytes=self.file(method).stat().st_size)
            form = self._tested(form)
            return form if form.refused else self._timed(form)
        except CannotWrite:
            raise
        except UserError as error:  # of the writer, of ONNX Runtime here, or of the device
            return replace(form, refused=error.problem)

    def _tested(self, form: Form) -> Form:
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
        """With its time on the device, and the reason to reject it, if there is one."""
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


def half_cause(name: str, environment: Mapping[str, Any]) -> str:
    """Why 16 bits may be no faster on a device."""
    if environment.get("provider") == "CPUExecutionProvider" and "asimdhp" not in (
        environment.get("instructions") or ()
    ):
        return f"this processor converts {name} to fp32 around each operator"
    return "this provider does not compute it faster"
