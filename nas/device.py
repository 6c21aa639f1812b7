"""Where torch computes: the GPU if there is one, with bf16 autocast, else the CPU; in channels_last on both."""

from __future__ import annotations

from contextlib import AbstractContextManager

import torch
from torch import nn


def accelerator() -> torch.device:
    """The device on which networks are trained and scored."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def place(model: nn.Module, device: torch.device) -> nn.Module:
    """The model on `device`, in the memory format in which convolutions and pools are fastest, on CPUs too."""
    return model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]


def autocast(device: torch.device) -> AbstractContextManager[None]:
    """bf16 where the hardware is fast at it, full precision elsewhere."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=device.type == "cuda")
