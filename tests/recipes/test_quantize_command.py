"""`nas quantize`, from the command line to a folder with the form that won."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from nas_command import command, leftovers, nas_here
from torch import nn

from conftest import FinishedRun
from espalier.export.devices.base import MeasureSpec
from espalier.export.onnx import export_onnx
from espalier.export.timing import summarize
from espalier.nas.checkpoint import load_weights, save_weights
from espalier.nas.data import load
from espalier.nas.errors import Code
from espalier.nas.measurement import Measurement
from espalier.nas.models import network_factory
from espalier.recipes.config.quantize_settings import quantize_settings
from espalier.recipes.inputs.calibration import QuantizationImages
from user_errors import user_error

Capture = pytest.CaptureFixture[str]

OWN = """\
import torch
from torch import nn

class small(nn.Sequential):
    def __init__(self):
        super().__init__(
            nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(),
            nn.MaxPool2d(2), nn.Flatten(), nn.Linear(128, 10)
        )

class fragile(nn.Module):  # next to a feature of 1e6, all others have no level of 8 bits
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(65, 10)

    def forward(self, x):
        x = x.flatten(1)
        return self.linear(torch.cat([x, 1e6 + 0 * x[:, :1]], dim=1))

class seven(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Flatten(), nn.Linear(64, 7))
"""
FORMS = ("int8-minmax", "fp16")


class ByForm:
    """A device on which a file takes 1 ms times the factor of its form; which form it is its operators tell."""

    name = "local"

    def __init__(self, int8: float, fp16: float) -> None:
        self._factors = {"QuantizeLinear": int8, "Cast": fp16}
        self.files: list[str] = []
        self.batches: set[int] = set()

    def fingerprint(self, provider: str | None = None) -> dict[str, Any]:
        return {
            "id": "scripted",
            "cpu_architecture": "x86_64",
            "instructions": ["avx2"],
            "provider": "CPUExecutionProvider",
        }

    def measure(self, onnx_file: Path, spec: MeasureSpec) -> Measurement:
        return self.measure_together([onnx_file], spec)[0]

    def measure_together(self, onnx_files: Sequence[Path], spec: MeasureSpec) -> list[Measurement]:
        self.batches.add(spec.batch)
        return [self._measured(path, spec) for path in onnx_files]

    def _measured(self, path: Path, spec: MeasureSpec) -> Measurement:
        self.files.append(path.name)
        operators = {node.op_type for node in onnx.load(path).graph.node}
        ms = next((factor for name, factor in self._factors.items() if name in operators), 1.0)
        environment = self.fingerprint() | {"runs_per_session": 1}
        return Measurement(summarize([[ms]] * spec.sessions), "stable", environment)

    def close(self) -> None:
        """Nothing to let go of."""


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> ByForm:
    """int8 takes half the time of fp32, fp16 the same."""
    scripted = ByForm(int8=0.5, fp16=1.0)
    monkeypatch.setattr("espalier.recipes.commands.quantize.command.open_device", lambda address, *, where: scripted)
    return scripted


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of `small` after some steps on digits."""
    folder = tmp_path_factory.mktemp("trained")
    (folder / "own.py").write_text(OWN)
    torch.manual_seed(0)
    network = network_factory(f"{folder / 'own.py'}:small", image_shape=(1, 8, 8), classes=10)()
    images, _ = load("digits")
    x, y = (images.pixels.float() / 255 - 0.3) / 0.38, images.labels
    optimizer = torch.optim.Adam(network.parameters(), lr=0.005)
    for _ in range(60):
        chosen = torch.randint(len(x), (256,))
        loss = nn.functional.cross_entropy(network(x[chosen]), y[chosen])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    save_weights(folder / "w.safetensors", network)
    return folder / "w.safetensors"


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trained: Path) -> Iterator[Path]:
    """A folder with a user's networks."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own.py").write_text(OWN)
    (tmp_path / "w.safetensors").write_bytes(trained.read_bytes())
    return tmp_path


def quantized(capsys: Capture, model: object, *arguments: object) -> dict[str, Any]:
    """What a quantisation that ends well prints as JSON."""
    answer = nas_here(capsys, "quantize", model, "--json", "-o", "out", "--max-drop", 0.1, *arguments)
    assert answer.code == 0, answer.err
    result: dict[str, Any] = json.loads(answer.out)
    return result


def trained_small(capsys: Capture, *arguments: object) -> dict[str, Any]:
    return quantized(capsys, "own.py:small", "--weights", "w.safetensors", "--methods", ",".join(FORMS), *arguments)


def of(result: dict[str, Any], name: str) -> dict[str, Any]:
    (form,) = (form for form in result["forms"] if form["name"] == name)
    return form  # type: ignore[no-any-return]


def test_the_winner_is_kept_and_the_others_are_told_why(capsys: Capture, tmp_path: Path, device: ByForm) -> None:
    result = trained_small(capsys)
    out = tmp_path / "out"
    assert result["kept"] == "int8-minmax"
    assert json.loads((out / "result.json").read_text()) == result
    fp32, int8, fp16 = (of(result, name) for name in ("fp32", *FORMS))
    assert (int8["latency"]["ratio"], int8["refused"]) == (0.5, None)
    assert fp16["refused"].startswith("it is not measurably faster than fp32 (time x 1.00 [1.00, 1.00]): ")
    assert fp32["accuracy"]["value"] > 0.8
    assert int8["size_bytes"] < fp16["size_bytes"] < fp32["size_bytes"]
    assert int8["drop"]["value"] == pytest.approx(fp32["accuracy"]["value"] - int8["accuracy"]["value"])
    assert 0 < fp16["error"] < int8["error"] < 0.1
    assert (out / "model.onnx").stat().st_size == int8["size_bytes"]
    assert {path.name for path in out.iterdir()} == {".lock", "README.md", "model.onnx", "result.json"}
    assert not leftovers(out)
    assert device.files == ["fp32.onnx", "int8-minmax.onnx", "fp32.onnx", "fp16.onnx"]
    card = (out / "README.md").read_text()
    assert "int8-minmax is kept: it takes 0.50 [0.50, 0.50] of fp32's time" in card
    assert "converts fp16 to fp32 around each operator" in card


def test_what_is_written_is_what_was_judged(capsys: Capture, tmp_path: Path, device: ByForm) -> None:
    result = trained_small(capsys, "--keep-all")
    images = QuantizationImages(quantize_settings({"data": {"source": "digits"}})).test()
    right = {}
    for name in ("model", "fp32", *FORMS):
        session = onnxruntime.InferenceSession(tmp_path / "out" / f"{name}.onnx", providers=["CPUExecutionProvider"])
        logits = [session.run(None, {"input": batch})[0] for batch in images.batches(50)]
        right[name] = np.concatenate(logits).argmax(axis=1) == images.labels
    for name in ("fp32", *FORMS):
        assert of(result, name)["accuracy"]["value"] == right[name].mean()
    assert (right["model"] == right["int8-minmax"]).all()
    lost = int((right["fp32"] & ~right["int8-minmax"]).sum())
    assert (of(result, "int8-minmax")["drop"]["lost"], result["test_images"]) == (lost, len(images.labels))


def test_fp32_stays_where_no_form_is_faster(
    capsys: Capture, tmp_path: Path, device: ByForm, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = ByForm(int8=1.5, fp16=1.2)
    monkeypatch.setattr("espalier.recipes.commands.quantize.command.open_device", lambda address, *, where: slow)
    result = trained_small(capsys)
    assert result["kept"] == "fp32"
    assert (tmp_path / "out" / "model.onnx").stat().st_size == of(result, "fp32")["size_bytes"]
    line = "it is slower than fp32 (time x 1.50 [1.50, 1.50]): this processor has no 8-bit dot products (VNNI)"
    assert of(result, "int8-minmax")["refused"] == line
    assert "fp32 is kept on" in (tmp_path / "out" / "README.md").read_text()


def test_a_form_may_not_lose_more_than_was_said(capsys: Capture, device: ByForm) -> None:
    result = trained_small(capsys, "max_drop=0.001")
    # 180 test images: even without a difference the upper bound is 3.84 / (180 + 3.84), 2.1 %.
    assert result["kept"] == "fp32"
    assert "more than 0.10%" in of(result, "int8-minmax")["refused"]


def test_a_network_that_quantisation_destroys(capsys: Capture, tmp_path: Path, device: ByForm) -> None:
    torch.manual_seed(0)
    network = network_factory("own.py:fragile", image_shape=(1, 8, 8), classes=10)()
    save_weights(tmp_path / "fragile.safetensors", network)
    weights = ("--weights", "fragile.safetensors", "--methods", "int8-minmax,int8-dynamic,fp16")
    result = quantized(capsys, "own.py:fragile", *weights)
    said = "quantisation destroys the network: its outputs are equal for all images"
    assert of(result, "int8-minmax")["refused"] == said
    assert of(result, "int8-dynamic")["refused"] == said
    assert of(result, "fp16")["size_bytes"] is not None  # the others go on
    assert result["kept"] == "fp32"
    assert "fragile" not in "".join(device.files)


def test_calibration_never_looks_at_test_images(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    pixels = generator.integers(0, 256, (400, 8, 8, 1), dtype=np.uint8)
    np.savez(tmp_path / "unlike.npz", x_train=pixels[:300], y_train=np.arange(300) % 10)
    data = {"source": "npz", "path": tmp_path / "unlike.npz"}
    images = QuantizationImages(quantize_settings({"data": data, "calibration_images": 10_000}))
    calibration = {image.tobytes() for image in images.calibration()}
    others = {
        part: next(iter(made.batches(300))) for part, made in (("test", images.test()), ("held", images.held_back()))
    }
    for name, batch in others.items():
        assert len(batch) == 30, name
        assert not calibration & {image.tobytes() for image in batch}, name
    assert len(calibration) == 300 - 60
    few = QuantizationImages(quantize_settings({"data": data, "calibration_images": 7})).calibration()
    assert few.shape == (7, 1, 8, 8)
    assert {image.tobytes() for image in few} < calibration


def test_an_onnx_file_with_a_fixed_batch(capsys: Capture, tmp_path: Path, device: ByForm) -> None:
    network = network_factory("own.py:small", image_shape=(1, 8, 8), classes=10)()
    load_weights(tmp_path / "w.safetensors", network)
    export_onnx(network, (1, 8, 8), tmp_path / "small.onnx", exporter="torchscript")
    model = onnx.load(tmp_path / "small.onnx")
    for value in (model.graph.input[0], model.graph.output[0]):
        value.type.tensor_type.shape.dim[0].dim_value = 7
    onnx.save(model, tmp_path / "seven.onnx")
    result = quantized(capsys, "seven.onnx", "--methods", "int8-minmax")
    assert device.batches == {7}
    assert of(result, "fp32")["accuracy"]["value"] > 0.8  # of all 180 images, the last batch filled up
    kept = onnx.load(tmp_path / "out" / "model.onnx").graph
    assert kept.input[0].type.tensor_type.shape.dim[0].dim_value == 7
    with user_error("out/model.onnx", None):
        command("quantize", "out/model.onnx", "-o", "again")


def test_the_network_of_a_run_brings_its_normalisation(
    capsys: Capture, finished_run: FinishedRun, tmp_path: Path, device: ByForm
) -> None:
    file = next((finished_run.folder / "architectures").glob("*/model.onnx"))
    by_file = quantized(capsys, file, "--methods", "int8-minmax")
    card = (tmp_path / "out" / "README.md").read_text()
    (tmp_path / "out").rename(tmp_path / "first")
    by_folder = quantized(capsys, file.parent, "--methods", "int8-minmax")
    assert of(by_file, "fp32")["accuracy"] == of(by_folder, "fp32")["accuracy"]
    mean = json.loads(onnx_metadata(file.parent / "model.safetensors")["mean"])
    assert f"mean {mean[0]:.4g}" in card


def onnx_metadata(path: Path) -> dict[str, str]:
    from safetensors import safe_open

    with safe_open(path, "pt") as weights:
        return weights.metadata()  # type: ignore[no-any-return]


def test_this_machine_times_a_form(capsys: Capture) -> None:
    arguments = ("--weights", "w.safetensors", "--methods", "int8-minmax", "--threads", 1, "profile.seconds=0.05")
    result = quantized(capsys, "own.py:small", *arguments)
    latency = of(result, "int8-minmax")["latency"]
    assert len(latency["ratios"]) == 5
    assert latency["measurement"]["environment"]["files_together"] == 2
    assert result["kept"] == ("int8-minmax" if of(result, "int8-minmax")["refused"] is None else "fp32")


@pytest.mark.parametrize(
    ("arguments", "where", "code", "says"),
    [
        ("own.py:small --methods int4", "methods.0", "unknown", "int8-minmax"),
        ("own.py:small --methods fp16,fp16", "--methods", "invalid", "fp16, fp16"),
        ("own.py:small --max-drop 2", "--max-drop", "out_of_range", "2"),
        ("own.py:small calibration_images=0", "calibration_images", "out_of_range", "0"),
        ("own.py:small --data absent", "--data", "not_found", "absent"),
        ("own.py:seven", "MODEL", "mismatch", "7 outputs"),
        ("absent.onnx", "absent.onnx", None, ""),
        ("absent.onnx --weights w.safetensors", "--weights", "conflict", "absent.onnx"),
        ("resnet18", "MODEL", "invalid", "timm:NAME"),
        ("own.py:small --size 16", "MODEL", "mismatch", "1x16x16"),
        ("own.py:small --device nowhere", "profile.device", None, "local"),
    ],
)
def test_what_a_user_gets_wrong(tmp_path: Path, arguments: str, where: str, code: Code | None, says: str) -> None:
    with user_error(where, code, says=says):
        command("quantize", *arguments.split(), "-o", "out")
    assert not list((tmp_path / "out").glob("model.*"))


def test_the_folder_is_missing_or_taken(tmp_path: Path) -> None:
    with user_error("--output", "missing"):
        command("quantize", "own.py:small")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine")
    with user_error("out", "conflict"):
        command("quantize", "own.py:small", "-o", "out")


@pytest.mark.slow
def test_resnet20_loses_nothing_in_int8(capsys: Capture, tmp_path: Path, shared_data: Path, device: ByForm) -> None:
    """87.95 % of 10,000 test images in fp32; per channel with 7-bit weights as much, on any processor."""
    weights = shared_data / "weights" / "resnet20_cifar10jpeg.npz"
    normalised = ("data.mean=[.485,.456,.406]", "data.std=[.229,.224,.225]", "data.limit=1000")
    own = Path(__file__).resolve().parents[2] / "benchmarks" / "resnet20.py"
    arguments = (f"{own}:ResNet20", "--weights", weights, "--data", shared_data / "cifar10", *normalised)
    result = quantized(capsys, *arguments, "--methods", "int8-minmax,int8-percentile")
    assert result["test_images"] == 1000
    assert of(result, "fp32")["accuracy"]["value"] > 0.86
    for name in ("int8-minmax", "int8-percentile"):
        drop = of(result, name)["drop"]
        assert drop["low"] <= 0 <= drop["high"]
        assert drop["high"] < 0.015
    assert result["kept"].startswith("int8")
