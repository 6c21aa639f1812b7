"""The device that torch computes on: the GPU with bf16 autocast if there is one, else the CPU."""

from __future__ import annotations

from contextlib import AbstractContextManager

import torch
from torch import nn


def accelerator() -> torch.device:
    """The device on which networks are trained and scored."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def place(model: nn.Module, device: torch.device) -> nn.Module:
    """The model on `device`, in channels_last format, the fastest for convolutions and pools (on CPUs too)."""
    return model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]


def autocast(device: torch.device) -> AbstractContextManager[None]:
    """bf16 on GPUs, full precision on CPUs."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=device.type == "cuda")
