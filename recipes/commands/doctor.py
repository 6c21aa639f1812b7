"""`nas doctor`: checks the installation and suggests fixes."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import Literal

import espalier.export  # noqa: F401 - it keeps ONNX Runtime from reporting its use; the processes below inherit that

LIBRARIES = (
    "torch",
    "torchvision",
    "torch_pruning",
    "timm",
    "optuna",
    "onnx",
    "onnxruntime",
    "onnxscript",
    "pyarrow",
    "sklearn",
)
LEAST_FREE_GB = 2


@dataclass(frozen=True)
class Finding:
    """What one check found.

    Attributes:
        check: what was checked.
        status: whether runs can work.
        detail: what was found, and how to fix it.
    """

    check: str
    status: Literal["ok", "problem"]
    detail: str


def examine() -> list[Finding]:
    """All checks, in the order in which to fix what they find."""
    checks: tuple[Callable[[], Finding], ...] = (memory, folder, builds, libraries, accelerator, runtime)
    findings = []
    for check in checks:
        findings.append(check())
        if findings[-1].status == "problem" and check is libraries:  # the checks after it would import what fails
            break
    return findings


def findings_text(findings: Sequence[Finding]) -> str:
    """A line for each finding."""
    return "\n".join(f"{finding.status:8} {finding.check}: {finding.detail}" for finding in findings)


def builds() -> Finding:
    """A CPU-only torch beside a torchvision built for CUDA (or the other way round) cannot load its operators."""
    try:
        versions = {name: installed_version(name) for name in ("torch", "torchvision")}
    except PackageNotFoundError as error:
        return Finding("torch and torchvision", "problem", f"{error.name} is missing: pip install torch torchvision")
    seen = ", ".join(f"{name} {number}" for name, number in versions.items())
    failure = import_failure("torchvision")
    if failure is None:
        return Finding("torch and torchvision", "ok", seen)
    cure = "pip install --force-reinstall torch torchvision from one index, so that both are built for the same thing"
    return Finding("torch and torchvision", "problem", f"{seen} do not work together ({failure}): {cure}")


def libraries() -> Finding:
    """Whether all required libraries can be imported."""
    failure = import_failure(*LIBRARIES)
    if failure is not None:
        return Finding(
            "libraries", "problem", f"{failure}: install this package again, with pip install --force-reinstall"
        )
    return Finding("libraries", "ok", f"all {len(LIBRARIES)} can be imported")


def accelerator() -> Finding:
    """Where networks are trained."""
    import torch

    if torch.cuda.is_available():
        return Finding("accelerator", "ok", f"{torch.cuda.get_device_name()}, bf16 autocast")
    return Finding("accelerator", "ok", f"none, so the CPU is used with {torch.get_num_threads()} threads")


def runtime() -> Finding:
    """Where exported networks are run."""
    from espalier.export.devices.local import LocalDevice

    return Finding("onnxruntime", "ok", str(LocalDevice().fingerprint()["provider"]))


def memory() -> Finding:
    """Whether a run fits."""
    import psutil

    free = psutil.virtual_memory().available / 1e9
    status: Literal["ok", "problem"] = "ok" if free >= LEAST_FREE_GB else "problem"
    return Finding("memory", status, f"{free:.1f} GB free" + ("" if status == "ok" else ": close other programs"))


def folder() -> Finding:
    """Whether a run can write here."""
    here = Path.cwd()
    if not os.access(here, os.W_OK):
        return Finding("folder", "problem", f"{here} is not writable: run from another folder, or set -o")
    free = shutil.disk_usage(here).free / 1e9
    if free < LEAST_FREE_GB:
        return Finding("folder", "problem", f"{here} has {free:.1f} GB free: a run needs {LEAST_FREE_GB} GB")
    return Finding("folder", "ok", f"{here}, {free:.0f} GB free")


def import_failure(*modules: str) -> str | None:
    """Why the first of `modules` that cannot be imported cannot; None if all can.

    They are imported in a fresh process, since an import that failed half way cannot be undone.
    """
    script = "import importlib, sys\nfor module in sys.argv[1:]: print(module); importlib.import_module(module)"
    result = subprocess.run([sys.executable, "-c", script, *modules], capture_output=True, text=True, check=False)
    if result.returncode == 0:
        return None
    reason = (result.stderr.strip().splitlines() or ["no reason given"])[-1]
    return f"import {result.stdout.split()[-1]} fails ({reason})"
