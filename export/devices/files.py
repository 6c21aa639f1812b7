"""An ONNX file together with the external files that contain its weights, for sending to a device."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from espalier.nas.errors import UserError
from espalier.nas.files import inside
from espalier.nas.hashing import file_hash


@dataclass(frozen=True)
class Part:
    """One file.

    Attributes:
        name: relative to the network's folder on the device.
        path: where it is here.
        sha256: its hash.
        stat: its size and modification time when it was read.
    """

    name: str
    path: Path
    sha256: str
    stat: tuple[int, int]


@dataclass(frozen=True)
class ModelFiles:
    """All files of a network.

    Attributes:
        parts: the ONNX file, then the files with its weights.
        key: SHA-256 of their names and hashes.
    """

    parts: tuple[Part, ...]
    key: str

    def is_current(self) -> bool:
        """Whether size and modification time of all files are still the same."""
        return all(part.path.is_file() and _stat(part.path) == part.stat for part in self.parts)


def model_files(path: Path) -> ModelFiles:
    """The files of the network in an ONNX file.

    The ONNX file is named by its hash, so that a user's file names are never sent to a device; weights keep the names
    by which the file refers to them.

    Raises:
        UserError: there is no such file, or its weights are missing or outside its folder.
    """
    if not path.is_file():
        raise UserError(str(path), "no such file", code="not_found")
    sha256 = file_hash(path)
    parts = [Part(f"{sha256}.onnx", path, sha256, _stat(path))]
    for name in sorted(set(_external(path))):
        pure = PurePosixPath(name)
        if ".." in pure.parts:  # not even one that leads back: the device has other folders
            raise UserError(str(path), f"its weights are outside its folder ({name})", code="unsupported")
        weights = inside(path.parent, name, where=str(path))
        if not weights.is_file():
            raise UserError(str(path), f"its weights are missing: there is no {name} beside it", code="not_found")
        parts.append(Part(str(pure), weights, file_hash(weights), _stat(weights)))
    text = json.dumps([(part.name, part.sha256) for part in parts])
    return ModelFiles(tuple(parts), hashlib.sha256(text.encode()).hexdigest())


def _external(path: Path) -> Iterator[str]:
    """The names of the files with a network's weights; none if the file is not ONNX, which the device will report."""
    import onnx
    from google.protobuf.message import DecodeError

    try:
        model = onnx.load(path, load_external_data=False)
    except DecodeError:
        return
    for tensor in _tensors(model.graph):
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            yield from (entry.value for entry in tensor.external_data if entry.key == "location")


def _tensors(graph: Any) -> Iterator[Any]:
    """All tensors of a graph and of those inside its nodes."""
    yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            yield attribute.t
            yield from attribute.tensors
            for inner in (attribute.g, *attribute.graphs):
                yield from _tensors(inner)


def _stat(path: Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_size, found.st_mtime_ns
