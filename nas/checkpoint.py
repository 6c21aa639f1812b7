"""Weights as safetensors, training state as a file that `torch.load(weights_only=True)` reads. Both atomic."""

from __future__ import annotations

import io
import pickle
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from nas.errors import UserError
from nas.files import write_bytes

BROKEN = (zipfile.BadZipFile, zlib.error, pickle.UnpicklingError)
"""What a damaged archive raises beyond the usual errors."""


def save_weights(path: Path, model: nn.Module, *, metadata: Mapping[str, str] | None = None) -> None:
    """Write the model's parameters and buffers to a safetensors file."""
    from safetensors.torch import save

    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    write_bytes(path, save(tensors, dict(metadata or {})))


def load_weights(path: Path, model: nn.Module) -> None:
    """Read the model's parameters and buffers from a safetensors file.

    Raises:
        UserError: the file is missing, damaged, or of another network; the first difference is named.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        tensors = load_file(path)
    except (OSError, SafetensorError) as error:
        cure = "delete the record of its stage in stages/ to make it again"
        raise UserError(str(path), f"cannot be read as safetensors ({error}); {cure}") from error
    expected = model.state_dict()
    for name in sorted(expected.keys() | tensors.keys()):
        if name not in tensors or name not in expected:
            raise UserError(str(path), f"holds another network: {name} is {'missing' if name in expected else 'extra'}")
        if tensors[name].shape != expected[name].shape:
            shapes = f"{tuple(tensors[name].shape)} in the file, {tuple(expected[name].shape)} in the network"
            raise UserError(str(path), f"holds another network: {name} is {shapes}")
    model.load_state_dict(tensors)


def save_state(path: Path, state: Mapping[str, Any]) -> None:
    """Write training state: nested dicts and lists of tensors, numbers and strings."""
    buffer = io.BytesIO()
    torch.save(dict(state), buffer)
    write_bytes(path, buffer.getvalue())


def load_state(path: Path) -> dict[str, Any]:
    """Read what `save_state` wrote, onto the CPU.

    Raises:
        UserError: the file is missing or damaged.
    """
    try:
        with zipfile.ZipFile(path) as archive:  # torch reads damaged numbers: it does not check its own checksums
            if (damaged := archive.testzip()) is not None:
                raise zipfile.BadZipFile(f"wrong checksum of {damaged}")
        return dict(torch.load(path, map_location="cpu", weights_only=True))
    except (OSError, RuntimeError, EOFError, ValueError, LookupError, *BROKEN) as error:
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(str(path), f"damaged checkpoint ({first}); delete it to start this stage again") from error
