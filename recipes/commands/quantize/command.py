"""`quantize`: every form of a network, tested on the same images, timed in turns, and the best one kept."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from espalier.export.onnx import export_onnx
from espalier.export.parity import OWN_IMAGES
from espalier.export.quantize.source import Source, read_source
from espalier.nas.errors import UserError
from espalier.nas.files import write_bytes, write_json, write_text
from espalier.nas.run import RunFolder
from espalier.recipes.commands import defaults
from espalier.recipes.commands.progress import announce, track
from espalier.recipes.commands.quantize.decision import FP32, chosen
from espalier.recipes.commands.quantize.result import ONNX, RESULT, QuantizeResult
from espalier.recipes.commands.quantize.table import model_card
from espalier.recipes.commands.quantize.trial import Trial
from espalier.recipes.config.data_source import data_section
from espalier.recipes.config.devices import open_device
from espalier.recipes.config.loading import set_key
from espalier.recipes.config.quantize_settings import QuantizeSettings, quantize_settings
from espalier.recipes.inputs.calibration import QuantizationImages
from espalier.recipes.inputs.model_source import ModelObject, ModelSource, model_source
from espalier.recipes.inputs.task_images import outputs_of


@dataclass(frozen=True)
class Request:
    """What to quantise, and how.

    Attributes:
        file: an ONNX file; None if it is yet to be written.
        source: of the network, or of the one beside the file.
        settings: the arguments of the command.
    """

    file: Path | None
    source: ModelSource | ModelObject | None
    settings: QuantizeSettings


def quantize(
    model: str | Path | nn.Module,
    output: str | Path,
    *,
    methods: Sequence[str] | None = None,
    max_drop: float = defaults.MAX_DROP,
    data: str | Path = defaults.DATA,
    test_data: str | Path | None = None,
    size: int | None = None,
    weights: str | Path | None = None,
    pretrained: bool = False,
    device: str = defaults.DEVICE,
    threads: int | None = None,
    keep_all: bool = False,
    seed: int = defaults.SEED,
    overrides: Mapping[str, Any] | None = None,
) -> QuantizeResult:
    """Write a network in int8, fp16 and bf16, test and time each form, and keep the best one for the device.

    Args:
        model: an ONNX file, `timm:NAME`, `FILE.py:FUNCTION`, `architectures/ID` of a run, a folder that a pruning
            wrote, or a module.
        output: the folder to write; new or empty.
        methods: forms to try (see `nas ls`); None tries all.
        max_drop: the largest loss of accuracy, as a share; the upper bound of the measured loss must be below.
        data: images to calibrate and test with: `digits`, a `.parquet` or `.npz` file, or a folder.
        test_data: test images, if `data` does not contain them.
        size: resize the images to size x size.
        weights: the network's weights: `.safetensors`, `.npz`, `.pt` or `.pth`.
        pretrained: use timm's pretrained weights.
        device: where to time: `local`, `ssh://HOST`, `adb://SERIAL` or `replay:FILE`.
        threads: of ONNX Runtime; None takes one per physical core.
        keep_all: keep the files of all forms.
        seed: of everything random.
        overrides: further settings, such as `{"calibration_images": 512, "profile.seconds": 5}`.

    Raises:
        UserError: bad input of any kind. A form that cannot be written or run is reported in the result instead.
    """
    document: dict[str, Any] = {
        "max_drop": max_drop,
        "keep_all": keep_all,
        "seed": seed,
        "data": data_section(data, test_data, size),
        "profile": {"device": device, "threads": threads},
    }
    if methods is not None:
        document["methods"] = tuple(methods)
    for key, value in (overrides or {}).items():
        set_key(document, key, value)
    request = _request(model, quantize_settings(document), weights=weights, pretrained=pretrained)
    return quantize_network(request, Path(output))


def _request(
    model: str | Path | nn.Module, settings: QuantizeSettings, *, weights: str | Path | None, pretrained: bool
) -> Request:
    """The model is an ONNX file, or a network as `prune` takes it.

    Raises:
        UserError: it is neither, or weights are given for an ONNX file.
    """
    if isinstance(model, nn.Module):
        return Request(None, ModelObject(model), settings)
    path = Path(model)
    if path.suffix != ".onnx":
        return Request(None, model_source(model, weights=weights, pretrained=pretrained), settings)
    for option, value in (("weights", weights), ("pretrained", pretrained or None)):
        if value is not None:
            raise UserError(option, f"{model} has its own weights", code="conflict")
    beside = path.parent / "model.safetensors"  # written by a run or a pruning, with the normalisation of the images
    return Request(path, model_source(beside) if beside.is_file() else None, settings)


def quantize_network(request: Request, output: Path) -> QuantizeResult:
    """Write, test and time every form, keep the best one as `model.onnx`, and write down why.

    Raises:
        UserError: see `quantize`.
    """
    settings, source = request.settings, request.source
    images = QuantizationImages(settings, None if source is None else source.normalisation)
    with RunFolder(output).lock() as folder, tempfile.TemporaryDirectory(prefix=".latency-", dir=output) as temporary:
        if any(not path.name.startswith(".") for path in output.iterdir()):
            raise UserError(str(output), "is not empty", code="conflict")
        work = Path(temporary)
        float32 = _float32(request, images, work)
        with closing(open_device(settings.profile.device, where="profile.device")) as device:
            trial = Trial(float32, settings, images, device, work)
            methods = track(settings.methods, "quantize", len(settings.methods))
            forms = (trial.float32, *map(trial.form, methods))
        best = chosen(forms)
        kept = {ONNX: best}
        if settings.keep_all:
            kept |= {f"{form.name}.onnx": form.name for form in forms if form.size_bytes is not None}
        for file, form in kept.items():
            write_bytes(folder / file, trial.file(form).read_bytes())
        result = QuantizeResult(
            kept=best,
            max_drop=settings.max_drop,
            calibration_images=len(trial.calibration),
            int8=trial.scheme,
            environment=trial.environment,
            test_images=len(trial.test.labels),
            forms=forms,
            folder=output,
        )
        write_json(folder / RESULT, result.to_dict())
        write_text(folder / "README.md", model_card(result, float32, *images.normalisation))
    return result


def _float32(request: Request, images: QuantizationImages, work: Path) -> Source:
    """The float32 file: the given one, checked, or the given network, exported."""
    path, source, shape = request.file, request.source, images.splits.image_shape
    if path is None:
        assert source is not None
        if source.is_fresh:
            announce("the model has fresh weights (neither weights nor pretrained is set): expect accuracy by chance")
        with torch.random.fork_rng():
            torch.manual_seed(request.settings.seed)
            network = source.make(shape, len(images.splits.classes))
        outputs_of(network, shape)
        path = work / f"{FP32}.onnx"
        export_onnx(network, shape, path, images=torch.from_numpy(images.calibration()[:OWN_IMAGES]))
    found = read_source(path)
    if found.image_shape != shape:
        wanted, has = ("x".join(map(str, size)) for size in (found.image_shape, shape))
        raise UserError("data", f"has images of {has}, {path} takes {wanted}", code="mismatch")
    return found
