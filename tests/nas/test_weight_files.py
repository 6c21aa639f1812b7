"""Files of weights that say more than they have, or unpack to more than anything needs, are refused unread."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from espalier.nas.checkpoint import load_weights, read_weights, save_weights
from espalier.nas.errors import Code
from user_errors import user_error


def network() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3))


def header(shape: tuple[int, ...], content: bytes) -> bytes:
    """A `.npy` file whose header says that shape."""
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, {"descr": "<f4", "fortran_order": False, "shape": shape})
    return buffer.getvalue() + content


def bomb(path: Path) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("0.weight.npy", header((50_000_000,), bytes(200_000_000)))


def lying_npz(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("0.weight.npy", header((10**9, 8, 8), bytes(64)))


def no_npz(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("0.weight.npy", b"hello")


def packed_pt(path: Path) -> None:
    torch.save({"0.weight": torch.zeros(5_000_000)}, path)
    with zipfile.ZipFile(path) as archive:
        content = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, inner in content.items():
            archive.writestr(name, inner)


def lying_safetensors(path: Path) -> None:
    text = json.dumps({"0.weight": {"dtype": "F32", "shape": [10**9, 64], "data_offsets": [0, 256 * 10**9]}}).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + bytes(64))


def long_safetensors_header(path: Path) -> None:
    path.write_bytes((2**60).to_bytes(8, "little") + b"{}")


def other_sizes(path: Path) -> None:
    np.savez(path, **{"0.weight": np.zeros((3000, 1000))})


@pytest.mark.parametrize(
    ("write", "suffix", "code"),
    [
        (bomb, "npz", "mismatch"),
        (lying_npz, "npz", "unreadable"),
        (no_npz, "npz", "unreadable"),
        (packed_pt, "pt", "unreadable"),
        (lying_safetensors, "safetensors", "unreadable"),
        (long_safetensors_header, "safetensors", "unreadable"),
        (other_sizes, "npz", "mismatch"),
    ],
)
def test_sizes_are_checked_before_anything_is_read(
    tmp_path: Path, write: Callable[[Path], None], suffix: str, code: Code
) -> None:
    path = tmp_path / f"weights.{suffix}"
    write(path)
    with user_error(path.name, code):
        load_weights(path, network())


def test_whole_files_are_read_as_before(tmp_path: Path) -> None:
    trained = network()
    state = trained.state_dict()
    np.savez_compressed(tmp_path / "w.npz", **{name: tensor.numpy() for name, tensor in state.items()})
    torch.save(state, tmp_path / "w.pt")
    save_weights(tmp_path / "w.safetensors", trained)
    for name in ("w.npz", "w.pt", "w.safetensors"):
        found = read_weights(tmp_path / name)
        assert all(torch.equal(found[key], state[key]) for key in state)
        load_weights(tmp_path / name, network())
