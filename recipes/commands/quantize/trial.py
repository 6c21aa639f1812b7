"""The forms of one network, each written, tested and timed against float32."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from espalier.export.comparison import compare
from espalier.export.devices.base import Device
from espalier.export.finite import first_node_not_finite
from espalier.export.metadata import write_metadata
from espalier.export.quantize.forms import Method, Quantizer
from espalier.export.quantize.placement import placement
from espalier.export.quantize.running import BATCH, depends_on_input, outputs
from espalier.export.quantize.source import Source
from espalier.nas.data.class_order import listed
from espalier.nas.errors import CannotWrite, UserError
from espalier.nas.intervals import Proportion
from espalier.nas.paired import PairedDrop
from espalier.recipes.commands.progress import announce
from espalier.recipes.commands.quantize.decision import FP32, Form, objection
from espalier.recipes.config.quantize_settings import QuantizeSettings
from espalier.recipes.engine.int8_scheme import scheme_on
from espalier.recipes.inputs.calibration import NormalisedImages, QuantizationImages
from espalier.recipes.inputs.calibration_arrays import Items, QuantizationArrays
from espalier.recipes.inputs.class_doubt import class_doubt

CPU = "CPUExecutionProvider"
UNKNOWN = "why it is no faster is not known"
QuantizationData = QuantizationImages | QuantizationArrays


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
        tested: how many of them.
        scheme: how int8 is written.
        environment: the fingerprint of the device.

    Raises:
        UserError: the network does not classify the images.
    """

    def __init__(
        self, source: Source, settings: QuantizeSettings, images: QuantizationData, device: Device, work: Path
    ) -> None:
        self._source, self._settings, self._device, self._work = source, settings, device, work
        profile = settings.profile
        self.environment = device.fingerprint(profile.provider)
        self.scheme = scheme_on(device, profile.provider)
        batch = source.batch or profile.batch
        self._spec = profile.spec(batch=batch, sessions=settings.rounds, dims=source.dims)
        self._described = images.described
        self.calibration = images.calibration()
        self.test, self._held_back = images.test(), images.held_back()
        self._logits = self._float32_outputs(self.test, images.classes)
        self._labels = self.test.labels if self.test.labels is not None else self._logits.argmax(axis=1)
        self._held_back_labels = self._held_back.labels
        if self._held_back_labels is None:
            announce("there are no labels: accuracy is the share of predictions that are those of fp32")
            self._held_back_labels = self._float32_outputs(self._held_back, None).argmax(axis=1)
        self._right, self.tested = self._logits.argmax(axis=1) == self._labels, len(self._labels)
        self.float32 = Form(
            FP32,
            size_bytes=source.path.stat().st_size,
            accuracy=Proportion.of(float(self._right.mean()), len(self._right)),
            held_back=self._accuracy_held_back(source.path),
        )
        self._quantizer = Quantizer(source, self.scheme, self.calibration, work, per_channel=settings.per_channel)

    def _float32_outputs(self, items: Items | NormalisedImages, classes: int | None) -> np.ndarray:
        """The logits `(n, classes)` of the network itself.

        Raises:
            UserError: its outputs are none, or not finite; the first tensor that is not is named.
        """
        logits = self._outputs(self._source.path, items)
        if logits.ndim != 2 or (classes is not None and logits.shape[1] != classes):
            has = f"{logits.shape[1]} outputs" if logits.ndim == 2 else f"outputs of shape {logits.shape[1:]}"
            wanted = "one for each class" if classes is None else f"{classes}, one for each class"
            called = f": {listed(self._described.classes)}" if self._described.classes else ""
            problem = f"has {has} for an item, must have {wanted}{called}"
            raise UserError("model", problem, code="mismatch")
        if items.labels is not None and int(items.labels.max(initial=0)) >= logits.shape[1]:
            problem = f"has labels up to {int(items.labels.max())}, but the network has {logits.shape[1]} classes"
            raise UserError("data", problem, code="mismatch")
        if not np.isfinite(logits).all():
            size = self._source.batch or BATCH
            feeds = map(self._source.feed, items.batches(size))
            names = (first_node_not_finite(self._source.path, feed) for feed in feeds)
            first = next((name for name in names if name is not None), None)
            problem = "its outputs are not finite on finite inputs"
            raise UserError(
                str(self._source.path), f"{problem}{'' if first is None else f', from {first} on'}", code="invalid"
            )
        return logits

    def file(self, name: str) -> Path:
        """The file of a form."""
        return self._source.path if name == FP32 else self._work / f"{name}.onnx"

    def doubt(self, *, is_fresh: bool) -> str | None:
        """Why the network's outputs may stand for other classes; see `class_doubt`."""
        if not self._described.classes:
            return None
        answers = self._outputs(self._source.path, self._held_back).argmax(axis=1)
        labels = torch.from_numpy(self._held_back_labels)
        return class_doubt(torch.from_numpy(answers), labels, self._described.classes, is_fresh=is_fresh)

    def form(self, method: Method) -> Form:
        """One form; whatever is wrong with it is the reason why it is rejected.

        Raises:
            CannotWrite: the disk is full.
        """
        form = Form(method)
        try:
            self._quantizer.write(method, self.file(method))
            write_metadata(self.file(method), self._described)
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
        right = logits.argmax(axis=1) == self._labels
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
        cause = self._int8_cause(form) if form.name.startswith("int8") else half_cause(form.name, self.environment)
        problem = objection(form.drop, timed, max_drop=self._settings.max_drop, cause=cause)
        return replace(form, timed=timed, refused=problem)

    def _int8_cause(self, form: Form) -> str:
        """What is known of why 8 bits are no faster."""
        if self.scheme.dot_products is False:
            return self.scheme.reason
        if self.environment.get("provider") != CPU:
            return UNKNOWN
        found = placement(self.file(form.name))
        return str(found) if found.int8 == 0 else f"{found}; {UNKNOWN}"

    def _accuracy_held_back(self, path: Path) -> float:
        logits = self._outputs(path, self._held_back)
        return float((logits.argmax(axis=1) == self._held_back_labels).mean())

    def _outputs(self, path: Path, images: Items | NormalisedImages) -> np.ndarray:
        provider = self.environment.get("provider") or CPU
        return outputs(path, self._source, images.batches(self._source.batch or BATCH), provider)


def half_cause(name: str, environment: Mapping[str, Any]) -> str:
    """Why 16 bits may be no faster on a device."""
    if environment.get("provider") == CPU and "asimdhp" not in (environment.get("instructions") or ()):
        return f"this processor converts {name} to fp32 around each operator"
    return UNKNOWN
