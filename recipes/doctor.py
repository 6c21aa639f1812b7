"""Is this machine ready? Each finding names its cure in a sentence."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import Literal

LIBRARIES = ("torch", "torchvision", "timm", "optuna", "onnx", "onnxruntime", "onnxscript", "pyarrow", "sklearn")
LEAST_FREE_GB = 2


@dataclass(frozen=True)
class Finding:
    """Attributes: check: what was looked at. status: whether runs can work. detail: what was seen, and the cure."""

    check: str
    status: Literal["ok", "problem"]
    detail: str


def examine() -> list[Finding]:
    """All checks, in the order in which to mend what they find."""
    checks: tuple[Callable[[], Finding], ...] = (_builds, _imports, _accelerator, _runtime, _memory, _folder)
    return [check() for check in checks]


def _builds() -> Finding:
    """A CPU-only torch beside a torchvision built for CUDA (or the other way round) cannot load its operators."""
    try:
        versions = {name: installed_version(name) for name in ("torch", "torchvision")}
    except PackageNotFoundError as error:
        return Finding("torch and torchvision", "problem", f"{error.name} is missing: pip install torch torchvision")
    seen = ", ".join(f"{name} {number}" for name, number in versions.items())
    failure = _import_failure("torchvision")
    if failure is None:
        return Finding("torch and torchvision", "ok", seen)
    cure = "pip install --force-reinstall torch torchvision from one index, so that both are built for the same thing"
    return Finding("torch and torchvision", "problem", f"{seen} do not fit together ({failure}): {cure}")


def _imports() -> Finding:
    for name in LIBRARIES:
        failure = _import_failure(name)
        if failure is not None:
            return Finding(
                "libraries", "problem", f"import {name} fails ({failure}): pip install --upgrade espalier-nas"
            )
    return Finding("libraries", "ok", f"{len(LIBRARIES)} import")


def _accelerator() -> Finding:
    import torch

    if torch.cuda.is_available():
        return Finding("accelerator", "ok", f"{torch.cuda.get_device_name()}, bf16 autocast")
    return Finding("accelerator", "ok", f"none; the CPU is used, {torch.get_num_threads()} threads")


def _runtime() -> Finding:
    if (failure := _import_failure("onnxruntime")) is not None:
        return Finding("onnxruntime", "problem", f"{failure}: pip install --force-reinstall onnxruntime")
    from export.devices.local import LocalDevice

    return Finding("onnxruntime", "ok", str(LocalDevice().fingerprint()["provider"]))


def _memory() -> Finding:
    import psutil

    free = psutil.virtual_memory().available / 1e9
    status: Literal["ok", "problem"] = "ok" if free >= LEAST_FREE_GB else "problem"
    return Finding("memory", status, f"{free:.1f} GB free" + ("" if status == "ok" else ": close other programs"))


def _folder() -> Finding:
    here = Path.cwd()
    if not os.access(here, os.W_OK):
        return Finding("folder", "problem", f"{here} cannot be written: run from another folder, or give -o")
    free = shutil.disk_usage(here).free / 1e9
    if free < LEAST_FREE_GB:
        return Finding("folder", "problem", f"{here} has {free:.1f} GB free: runs need {LEAST_FREE_GB} GB")
    return Finding("folder", "ok", f"{here}, {free:.0f} GB free")


def _import_failure(module: str) -> str | None:
    """Why `module` does not import; tried in a fresh process, since a half-made import cannot be undone."""
    command = [sys.executable, "-c", f"import {module}"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    return None if result.returncode == 0 else (result.stderr.strip().splitlines() or ["no reason given"])[-1]
