"""Whole requests: shares by hand, and real images through a real network."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto
from onnx_files import make_file
from PIL import Image
from scripted_agent import QUIET, ScriptedAgent

from espalier.export.devices.agent.requests import STEPS
from espalier.export.devices.base import MeasureSpec
from espalier.export.devices.local import LocalDevice
from espalier.export.end_to_end import MAX_IMAGES, image_files, measure_end_to_end
from espalier.nas.errors import Code, UserError
from user_errors import user_error

SPEC = MeasureSpec(threads=1, sessions=2, seconds=0.02, min_runs=3)


@pytest.fixture
def image(tmp_path: Path) -> Path:
    pixels = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "image.png")
    return tmp_path / "image.png"


def test_shares_by_hand(image: Path) -> None:
    def answer(decode_ms: float, inference_ms: float) -> dict[str, object]:
        times = {"decode": [decode_ms] * 100, "inference": [inference_ms] * 100}
        return {"runs": 100, "threads": 1, "times_ms": times, "counters": QUIET}

    device = ScriptedAgent([answer(3.0, 1.0), answer(2.0, 2.0)])
    found = measure_end_to_end(device, Path("m.onnx"), image, SPEC)
    assert found.latency.p50 == 4.0
    decode, inference = found.steps
    assert (decode.name, decode.share, decode.ci95) == ("decode", pytest.approx(5 / 8), pytest.approx((0.5, 0.75)))
    assert (inference.share, inference.ci95) == (pytest.approx(3 / 8), pytest.approx((0.25, 0.5)))
    assert decode.latency.p50 == 2.5
    assert sum(step.share for step in found.steps) == pytest.approx(1.0)
    assert (found.verdict, found.images, found.environment["id"]) == ("stable", 1, "scripted")
    assert device.requests[0]["files"] == [Path("m.onnx"), image]
    assert [request["runs"] for request in device.requests] == [None, 100]


@pytest.mark.parametrize(
    ("kind", "shape"),
    [
        (TensorProto.FLOAT, ["n", 3, 8, 8]),
        (TensorProto.FLOAT16, ["n", 1, 8, 8]),
        (TensorProto.UINT8, ["n", 8, 6, 3]),
        (TensorProto.FLOAT, [2, 3, 8, 6]),
    ],
)
def test_real_images_of_every_layout(image: Path, kind: int, shape: list[int | str], tmp_path: Path) -> None:
    path = make_file(tmp_path / "m.onnx", [("x", kind, shape)])
    device = LocalDevice()
    found = measure_end_to_end(device, path, tmp_path, MeasureSpec(threads=1, batch=2, sessions=2, seconds=0.02))
    device.close()
    assert tuple(step.name for step in found.steps) == STEPS
    assert sum(step.share for step in found.steps) == pytest.approx(1.0)
    assert found.images == 1
    assert found.environment["batch"] == 2


@pytest.mark.parametrize(
    ("inputs", "code", "says"),
    [
        ([("x", TensorProto.FLOAT, ["n", 3, "h", 8])], "unsupported", "height"),
        ([("x", TensorProto.FLOAT, ["n", 10])], "unsupported", "['n', 10]"),
        ([("x", TensorProto.INT64, ["n", 3, 8, 8])], "unsupported", "tensor(int64); allowed: tensor(float)"),
        ([("x", TensorProto.FLOAT, [4, 3, 8, 8])], "mismatch", "allowed: 4"),
        ([("x", TensorProto.FLOAT, ["n", 3, 8, 8]), ("y", TensorProto.FLOAT, ["n", 3])], "unsupported", "2 inputs"),
    ],
)
def test_networks_that_take_no_images(
    image: Path, inputs: list[tuple[str, int, list[int | str]]], code: Code, says: str, tmp_path: Path
) -> None:
    path = make_file(tmp_path / "m.onnx", inputs)
    with user_error(str(path) if len(inputs) > 1 else f"{path}: input 'x'", code, says=says):
        measure_end_to_end(LocalDevice(), path, image, SPEC)


def test_images_that_are_none(onnx_file: Path, tmp_path: Path) -> None:
    device = LocalDevice()
    (tmp_path / "notes.txt").write_text("no image")
    with user_error(str(tmp_path), "too_few", says=".bmp"):
        measure_end_to_end(device, onnx_file, tmp_path, SPEC)
    with user_error("missing", "not_found"):
        measure_end_to_end(device, onnx_file, tmp_path / "missing", SPEC)
    damaged = tmp_path / "damaged.png"
    damaged.write_bytes(b"\x89PNG\r\n\x1a\nand no more")
    unknown = tmp_path / "unknown.png"
    unknown.write_bytes(b"no picture at all")
    with pytest.raises(UserError) as caught:
        measure_end_to_end(device, onnx_file, unknown, SPEC)
    assert "object at" not in str(caught.value)
    with user_error(str(damaged), "unreadable"):
        measure_end_to_end(device, onnx_file, tmp_path, SPEC)
    device.close()


def test_a_folder_gives_its_first_images(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    for number in range(MAX_IMAGES + 5):
        (tmp_path / "b" / f"{number:03}.JPG").touch()
    (tmp_path / "a.png").touch()
    found = image_files(tmp_path)
    assert len(found) == MAX_IMAGES
    assert (found[0].name, found[-1].name) == ("a.png", f"{MAX_IMAGES - 2:03}.JPG")


def test_open_sides_take_their_sizes(tmp_path: Path) -> None:
    Image.new("L", (9, 9)).save(tmp_path / "grey.png")
    path = make_file(tmp_path / "any.onnx", [("x", TensorProto.FLOAT, ["n", 1, "h", "w"])])
    device = LocalDevice()
    found = measure_end_to_end(device, path, tmp_path / "grey.png", replace(SPEC, dims={"h": 6, "w": 5}))
    assert found.latency.count >= 6
    with user_error("any.onnx: input 'x'", "unsupported", says="symbolic"):
        measure_end_to_end(device, path, tmp_path / "grey.png", SPEC)
    device.close()
