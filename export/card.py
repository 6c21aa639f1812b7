"""The model card of a bundle: a description of the network, and the code to load it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from espalier.export.onnx import Exported

_CARD = """# {class_name}

An image classifier in plain PyTorch and in ONNX. Only the libraries named below are needed to run it.

| | |
|---|---|
{rows}

## Input

Float32 images of shape `(batch, {channels}, {height}, {width})`, normalised per channel:
`(pixels / 255 - mean) / std` with

- mean {mean}
- std {std}

Output: `logits` of shape `(batch, {class_count})`, one for each class:

{classes}

## PyTorch

With `torch` and `safetensors` installed, in this folder:

```python
from model import {class_name}; from safetensors.torch import load_file
network = {class_name}().eval()
network.load_state_dict(load_file("model.safetensors"))
logits = network(images)  # a float32 tensor
```

## ONNX Runtime

```python
import onnxruntime
session = onnxruntime.InferenceSession("model.onnx")
logits = session.run(["logits"], {{"input": images}})[0]  # images: a float32 NumPy array
```
"""


def model_card(class_name: str, metadata: Mapping[str, Any], facts: Mapping[str, Any], exported: Exported) -> str:
    """The card as Markdown.

    Args:
        class_name: name of the network's class in `model.py`.
        metadata: `input_shape`, `classes`, `mean`, `std`.
        facts: rows of the table.
        exported: the ONNX file.
    """
    channels, height, width = metadata["input_shape"]
    onnx = {
        "ONNX": f"opset {exported.opset}, {exported.size_bytes:,} bytes, {exported.exporter} exporter",
        "ONNX against PyTorch": f"largest difference {exported.parity.max_abs_error:.2g}",
    }
    if exported.parity.constant:
        onnx["Note"] = "the logits do not depend on the input"
    return _CARD.format(
        class_name=class_name,
        rows="\n".join(f"| {_cell(name)} | {_cell(value)} |" for name, value in {**facts, **onnx}.items()),
        channels=channels,
        height=height,
        width=width,
        mean=", ".join(map(str, metadata["mean"])),
        std=", ".join(map(str, metadata["std"])),
        class_count=len(metadata["classes"]),
        classes="\n".join(f"{index}. {name}" for index, name in enumerate(metadata["classes"])),
    )


def _cell(value: Any) -> str:
    text = f"{value:,}" if type(value) is int else str(value)
    return text.replace("|", r"\|").replace("\n", " ")
