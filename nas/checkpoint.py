"""Weights as safetensors, training state as files for `torch.load(weights_only=True)`; both written atomically."""

from __future__ import annotations

import hashlib
import io
import json
import math
import pickle
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from espalier.nas.errors import UserError
from espalier.nas.files import write_bytes

CHECKSUM = 32
"""Bytes of a SHA-256."""
BROKEN = (zipfile.BadZipFile, zlib.error, pickle.UnpicklingError)
"""What reading a damaged archive can raise besides the usual errors."""
WIDEST, SPARE = 8, 1 << 20
"""Bytes of the widest number, and room for the small tensors that a file may have beside those of a network."""
REMAKE = "if a run wrote it, delete the record of its stage in stages/ to make it again"


def save_weights(path: Path, model: nn.Module, *, metadata: Mapping[str, str] | None = None) -> None:
    """Write a model's parameters and buffers to a safetensors file; shared tensors are written once for each name."""
    from safetensors.torch import save

    tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in model.state_dict().items()}
    write_bytes(path, save(tensors, dict(metadata or {})))


def load_weights(path: Path, model: nn.Module) -> None:
    """Read the model's parameters and buffers from a file of weights (see `read_weights`).

    The batch counters of batch norms may be missing: older files have none, and nothing depends on them.

    Args:
        path: the file.
        model: changed in place.

    Raises:
        UserError: the file is missing, damaged, or of another network; the message names the first difference.
    """
    expected = model.state_dict()
    room = WIDEST * sum(tensor.numel() for tensor in expected.values()) + SPARE
    tensors = read_weights(path, most=room)
    for name in sorted(expected.keys() | tensors.keys()):
        if name not in tensors and name.endswith("num_batches_tracked"):
            tensors[name] = expected[name]
        if name not in tensors or name not in expected:
            raise UserError(
                str(path),
                f"belongs to another network: {name} is {'missing' if name in expected else 'extra'}",
                code="mismatch",
            )
        if tensors[name].shape != expected[name].shape:
            shapes = f"{tuple(tensors[name].shape)} in the file, {tuple(expected[name].shape)} in the network"
            raise UserError(str(path), f"belongs to another network: {name} is {shapes}", code="mismatch")
    model.load_state_dict(tensors)


def read_weights(path: Path, *, most: int | None = None) -> dict[str, Tensor]:
    """The tensors of a safetensors file, of a NumPy archive `.npz`, or of torch's own `.pt` or `.pth`, by name.

    Args:
        path: the file.
        most: bytes that the tensors may have in memory; None for four fifths of what is available.

    Raises:
        UserError: the file is missing, damaged or of another format, or it holds anything but tensors.
    """
    readers = {".safetensors": _safetensors, ".npz": _numpy_archive, ".pt": _torch_archive, ".pth": _torch_archive}
    if path.suffix not in readers:
        raise UserError(str(path), "unknown format of weights", allowed=readers, given=path.suffix)
    if not path.is_file():
        raise UserError(str(path), "no such file", code="not_found")
    import psutil

    declared = _declared_bytes(path)
    if path.suffix != ".npz":
        most = None  # neither is compressed, and a checkpoint may hold more than a network
    room = most if most is not None else psutil.virtual_memory().available * 4 // 5
    if declared > room:
        whose = "memory has room for" if most is None else "the network has"
        problem = f"its tensors have {declared:,} bytes, more than the {room:,} that {whose}"
        raise UserError(str(path), problem, code="out_of_range" if most is None else "mismatch")
    return readers[path.suffix](path)


def _declared_bytes(path: Path) -> int:
    """Bytes that the tensors of a file have in memory, as its headers say; what they say must fit the file.

    Nothing of that size is read or allocated. The library of safetensors compares its headers with the file itself.

    Raises:
        UserError: a header that says another size than the file has, or a compressed `.pt`.
    """
    size = path.stat().st_size
    if path.suffix == ".safetensors":
        return size
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            if path.suffix == ".npz":
                return sum(_declared_array(archive, member) for member in members)
    except (OSError, ValueError, EOFError, NotImplementedError, RuntimeError, *BROKEN) as error:
        raise UserError(str(path), f"cannot be read as an archive of weights ({error})", code="unreadable") from error
    unpacked = sum(member.file_size for member in members)
    if unpacked > size:  # torch stores what it saves as it is
        problem = f"unpacks from {size:,} to {unpacked:,} bytes, which files that torch has saved do not"
        raise UserError(str(path), problem, code="unreadable")
    return unpacked


def _declared_array(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> int:
    """Bytes of one array of a NumPy archive, by its header.

    Raises:
        ValueError: its header says another size than the archive's directory.
    """
    with archive.open(member) as file:
        version = np.lib.format.read_magic(file)
        readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
        if version not in readers:
            raise ValueError(f"{member.filename} has version {version} of NumPy's format")
        shape, _, kind = readers[version](file)
        size, there = math.prod(shape) * kind.itemsize, member.file_size - file.tell()
    if size != there and not kind.hasobject:
        raise ValueError(f"the header of {member.filename} says {size:,} bytes, and there are {there:,}")
    return size


def weights_hash(path: Path) -> str:
    """The SHA-256 of the tensors in a safetensors file, whatever its metadata and their order; of a damaged file, its.

    Raises:
        OSError: it cannot be read.
    """
    content = path.read_bytes()
    digest = hashlib.sha256()
    try:
        start = 8 + int.from_bytes(content[:8], "little")
        tensors = json.loads(content[8:start])
        tensors.pop("__metadata__", None)
        for name in sorted(tensors):
            first, last = tensors[name]["data_offsets"]
            digest.update(json.dumps([name, tensors[name]["dtype"], tensors[name]["shape"]]).encode())
            digest.update(memoryview(content)[start + first : start + last])
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return hashlib.sha256(content).hexdigest()
    return digest.hexdigest()


def _safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return dict(load_file(path))
    except (OSError, SafetensorError) as error:
        raise UserError(str(path), f"cannot be read as safetensors ({error}); {REMAKE}", code="unreadable") from error


def _numpy_archive(path: Path) -> dict[str, Tensor]:
    try:
        with np.load(path, allow_pickle=False) as archive:
            return {name: torch.from_numpy(archive[name]) for name in archive.files}
    except (OSError, ValueError, TypeError, EOFError, *BROKEN) as error:
        raise UserError(
            str(path), f"cannot be read as a NumPy archive of numbers ({error})", code="unreadable"
        ) from error


def _torch_archive(path: Path) -> dict[str, Tensor]:
    state = _archived(path, path, "holds more than tensors, or is damaged", "save model.state_dict() alone")
    state = state.get("state_dict", state)
    if not all(isinstance(value, Tensor) for value in state.values()):
        raise UserError(
            str(path), "holds more than the tensors of a network; save model.state_dict() alone", code="unreadable"
        )
    return state


def save_state(path: Path, state: Mapping[str, Any]) -> None:
    """Write training state: nested dicts and lists of tensors, numbers and strings; its SHA-256 comes first."""
    buffer = io.BytesIO()
    torch.save(dict(state), buffer)
    content = buffer.getvalue()
    write_bytes(path, _checksum(content) + content)


def load_state(path: Path) -> dict[str, Any]:
    """Read what `save_state` wrote, onto the CPU.

    Raises:
        UserError: the file is missing, damaged or edited.
    """
    cure = "delete it to start this stage again"
    if not path.is_file():
        raise UserError(str(path), "no such file", code="not_found")
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(str(path), f"cannot be read: {error.strerror or error}", code="unreadable") from error
    state = memoryview(content)[CHECKSUM:]
    if content[:CHECKSUM] != _checksum(state):
        raise UserError(str(path), f"damaged checkpoint (its checksum is another); {cure}", code="unreadable")
    return _archived(path, io.BytesIO(state), "damaged checkpoint", cure)


def _checksum(content: bytes | memoryview) -> bytes:
    return hashlib.sha256(content).digest()


def _archived(path: Path, file: Path | io.BytesIO, problem: str, cure: str) -> dict[str, Any]:
    try:
        with zipfile.ZipFile(file) as archive:  # torch reads damaged numbers: it does not check its own checksums
            if (damaged := archive.testzip()) is not None:
                raise zipfile.BadZipFile(f"wrong checksum of {damaged}")
        if isinstance(file, io.BytesIO):
            file.seek(0)
        return dict(torch.load(file, map_location="cpu", weights_only=True))
    except (OSError, RuntimeError, EOFError, ValueError, LookupError, *BROKEN) as error:
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(str(path), f"{problem} ({first}); {cure}", code="unreadable") from error
