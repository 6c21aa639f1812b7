"""Metadata of ONNX files: names of classes, normalisation and shape of images, beside the network itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from espalier.export.errors import ExportError, reason
from espalier.nas.files import write_bytes
from espalier.nas.network_images import NetworkImages


def write_metadata(path: Path, images: NetworkImages) -> None:
    """Add what is known of a network's images to the metadata of its ONNX file; other entries stay.

    Args:
        path: a self-contained ONNX file, rewritten atomically; left alone where nothing is known.
        images: what is known.
    """
    import onnx

    text = images.to_metadata()
    if not text:
        return
    model = _loaded(path)
    known = {entry.key: entry.value for entry in model.metadata_props}
    onnx.helper.set_model_props(model, known | text)
    write_bytes(path, model.SerializeToString())


def read_metadata(path: Path) -> NetworkImages:
    """What an ONNX file says of the images that its network takes.

    Raises:
        ExportError: it is not an ONNX file.
        UserError: an entry is damaged.
    """
    return NetworkImages.from_metadata(path, {entry.key: entry.value for entry in _loaded(path).metadata_props})


def _loaded(path: Path) -> Any:
    import onnx

    try:
        return onnx.load(path, load_external_data=False)
    except Exception as error:  # from protobuf, or from the system
        raise ExportError(str(path), f"cannot be read as ONNX ({reason(error)})", code="unreadable") from error
