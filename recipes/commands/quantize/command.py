"""`quantize`: every form of a network, tested on the same images, timed in turns, and the best one kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from espalier.export.metadata import read_metadata, write_metadata
from espalier.export.onnx import export_onnx
from espalier.export.parity import OWN_IMAGES
from espalier.export.quantize.source import Source, input_names, length, read_source, takes_images
from espalier.nas.errors import UserError
from espalier.nas.files import write_bytes, write_json, write_text
from espalier.nas.network_images import NetworkImages
from espalier.nas.network_inputs import Input, as_inputs
from espalier.nas.run import RunFolder
from espalier.nas.scratch import ScratchFolder
from espalier.recipes.commands import defaults
from espalier.recipes.commands.arguments import reject
from espalier.recipes.commands.progress import announce, track
from espalier.recipes.commands.quantize.decision import FP32, chosen
from espalier.recipes.commands.quantize.result import ONNX, RESULT, QuantizeResult
from espalier.recipes.commands.quantize.table import model_card
from espalier.recipes.commands.quantize.trial import QuantizationData, Trial
from espalier.recipes.config.data_source import data_section
from espalier.recipes.config.devices import open_device
from espalier.recipes.config.loading import set_key
from espalier.recipes.config.quantize_settings import QuantizeSettings, quantize_settings
from espalier.recipes.inputs.calibration import QuantizationImages
from espalier.recipes.inputs.calibration_arrays import QuantizationArrays, read_arrays
from espalier.recipes.inputs.model_source import ModelObject, ModelSource, described_inputs, model_source
from espalier.recipes.inputs.task_images import outputs_of


@dataclass(frozen=True)
class Request:
    """What to quantise, and how.

    Attributes:
        file: an ONNX file; None if it is yet to be written.
        source: of the network, or of the one beside the file.
        settings: the arguments of the command.
        inputs: of a network that is yet to be written; None for images.
        dims: sizes of the file's open dimensions besides the batch.
    """

    file: Path | None
    source: ModelSource | ModelObject | None
    settings: QuantizeSettings
    inputs: tuple[Input, ...] | None = None
    dims: Mapping[str, int] = field(default_factory=dict)


def quantize(
    model: str | Path | nn.Module,
    output: str | Path,
    *,
    methods: Sequence[str] | None = None,
    max_drop: float = defaults.MAX_DROP,
    data: str | Path = defaults.DATA,
    test_data: str | Path | None = None,
    size: int | None = None,
    inputs: Sequence[Input | str] | None = None,
    dims: Mapping[str, int] | None = None,
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
        data: images to calibrate and test with: `digits`, a `.parquet` or `.npz` file, or a folder. For inputs that are
            no images, an `.npz` file with an array for each input, by its name, and `labels`; they are generated
            without one.
        test_data: test images, if `data` does not contain them.
        size: resize the images to size x size.
        inputs: of a network that takes no images, such as `ids:128:int64`; an ONNX file has its own.
        dims: sizes of an ONNX file's open dimensions besides the batch; those of the data need not be given.
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
    if inputs is None and not isinstance(model, nn.Module):
        inputs = described_inputs(Path(model))
    takes_arrays = inputs is not None or (isinstance(model, str | Path) and not _takes_images(Path(model)))
    document: dict[str, Any] = {
        "max_drop": max_drop,
        "keep_all": keep_all,
        "seed": seed,
        "data": _arrays_section(data, test_data, size) if takes_arrays else data_section(data, test_data, size),
        "profile": {"device": device, "threads": threads},
    }
    if methods is not None:
        document["methods"] = tuple(methods)
    for key, value in (overrides or {}).items():
        set_key(document, key, value)
    request = _request(model, quantize_settings(document), weights=weights, pretrained=pretrained)
    if request.file is not None and inputs is not None:
        raise UserError("inputs", f"{model} has its own inputs", code="conflict")
    if request.file is None and dims:
        raise UserError(
            "dim", "is of an ONNX file; a network is exported with the sizes of its inputs", code="conflict"
        )
    given = None if inputs is None else as_inputs(inputs)
    return quantize_network(replace(request, inputs=given, dims=dims or {}), Path(output))


def _takes_images(path: Path) -> bool:
    """Whether a file, if it is an ONNX file, takes images; what is wrong with it is told later."""
    return path.suffix != ".onnx" or takes_images(path)


def _arrays_section(data: str | Path, test_data: str | Path | None, size: int | None) -> dict[str, Any]:
    """The section `data` of a network that takes no images.

    Raises:
        UserError: the data are no NumPy archive, or images are meant.
    """
    reject({"test_data": test_data, "size": size}, "is of images, which this network does not take")
    if data == defaults.DATA:
        return {"source": "digits"}  # stands for values that are generated
    if Path(data).suffix != ".npz" or not Path(data).is_file():
        problem = f"{data} is not a file .npz with an array for each input, which this network needs"
        raise UserError("data", problem, code="not_found" if not Path(data).exists() else "mismatch")
    return {"source": "npz", "path": Path(data)}


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
    settings = request.settings
    with RunFolder(output).lock() as folder, ScratchFolder(prefix=".latency-", dir=output) as temporary:
        if any(not path.name.startswith(".") for path in output.iterdir()):
            raise UserError(str(output), "is not empty", code="conflict")
        work = Path(temporary)
        float32, data = _float32(request, work)
        with closing(open_device(settings.profile.device, where="profile.device")) as device:
            trial = Trial(float32, settings, data, device, work)
            if (doubt := trial.doubt(is_fresh=request.source is not None and request.source.is_fresh)) is not None:
                announce(f"warning: {doubt}")
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
            calibration_images=length(trial.calibration),
            int8=trial.scheme,
            environment=trial.environment,
            test_images=trial.tested,
            forms=forms,
            folder=output,
        )
        write_json(folder / RESULT, result.to_dict())
        write_text(folder / "README.md", model_card(result, float32, data.description))
    return result


def _float32(request: Request, work: Path) -> tuple[Source, QuantizationData]:
    """The float32 file, checked: the given one, or the given network, exported; and the data for it."""
    if request.inputs is not None or (request.file is not None and not takes_images(request.file)):
        return _with_arrays(request, work)
    settings, source, path = request.settings, request.source, request.file
    images = QuantizationImages(settings, _known(path, source))
    shape = images.splits.image_shape
    if path is None:
        network = _network(request, shape, images.classes)
        outputs_of(network, shape, settings.outputs)
        path = work / f"{FP32}.onnx"
        export_onnx(network, shape, path, images=torch.from_numpy(images.calibration()[:OWN_IMAGES]))
        write_metadata(path, images.described)
    found = read_source(path, dims=request.dims, shapes={"": shape}, output=settings.outputs)
    if found.image_shape != shape:
        wanted, has = ("x".join(map(str, size)) for size in (found.image_shape, shape))
        raise UserError("data", f"has images of {has}, {path} takes {wanted}", code="mismatch")
    return found, images


def _known(file: Path | None, source: ModelSource | ModelObject | None) -> NetworkImages:
    """What the ONNX file says of its images, or else the network or the files beside it."""
    beside = NetworkImages() if source is None else NetworkImages(source.classes, source.normalisation)
    if file is None:
        return beside
    own = read_metadata(file)
    return NetworkImages(own.classes or beside.classes, own.normalisation or beside.normalisation)


def _with_arrays(request: Request, work: Path) -> tuple[Source, QuantizationArrays]:
    """The same for inputs that are no images."""
    settings, path = request.settings, request.file
    if path is None:
        assert request.inputs is not None
        path = work / f"{FP32}.onnx"
        export_onnx(_network(request, (3, 0, 0), 0), request.inputs, path)
    arrays = None if settings.data.path is None else read_arrays(settings.data.path, input_names(path))
    shapes = {} if arrays is None else {name: array.shape[1:] for name, array in arrays.items()}
    found = read_source(path, dims=request.dims, shapes=shapes, output=settings.outputs)
    if arrays is None:
        announce("there is no data: forms are compared with fp32 on generated inputs, and none is calibrated")
    return found, QuantizationArrays(found.inputs, arrays, settings)


def _network(request: Request, shape: tuple[int, int, int], classes: int) -> nn.Module:
    source = request.source
    assert source is not None
    if source.is_fresh:
        announce("the model has fresh weights (neither weights nor pretrained is set): expect accuracy by chance")
    with torch.random.fork_rng():
        torch.manual_seed(request.settings.seed)
        return source.make(shape, classes)
