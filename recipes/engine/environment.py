"""The versions and the hardware that a run was made with."""

from __future__ import annotations

import os
import platform
from importlib.metadata import version as installed_version
from typing import Any

LIBRARIES = ("torch", "torchvision", "timm", "optuna", "onnx", "onnxruntime", "onnxscript", "numpy")


def version() -> str:
    """This platform's version."""
    return installed_version("espalier-nas")


def environment() -> dict[str, Any]:
    """Versions and hardware, as far as they are known here."""
    import torch

    return {
        "espalier-nas": version(),
        "python": platform.python_version(),
        "system": platform.platform(),
        "machine": platform.machine(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        **{library: installed_version(library) for library in LIBRARIES},
    }
