"""Which 8-bit instructions a processor has: they determine the best form of int8, and whether it can be fast.

ONNX Runtime's CPU kernels multiply unsigned activations by signed weights (U8S8). Without dot-product instructions x86
uses `vpmaddubsw`, which adds two products in 16 bits and saturates: 255 * 127 * 2 = 64,770 > 32,767. Weights of 7 bits
cannot saturate: 255 * 64 * 2 = 32,640. Source: ONNX Runtime's guide "Quantize ONNX models", "When and why do I need to
try U8U8?", and the docstring of `quantize_static`. It matters: ResNet-20 on CIFAR-10, per channel, loses 0.9 points of
accuracy with 8-bit weights on an AVX2 machine and none with 7-bit ones (benchmarks/quantize_resnet20.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

DOT_PRODUCTS = {
    "avx512_vnni": "AVX-512 VNNI",
    "avx_vnni": "AVX-VNNI",
    "amx_int8": "AMX",
    "asimddp": "the dot-product instructions of ARM",
    "i8mm": "the int8 matrix instructions of ARM",
}
"""Instructions that add four products in 32 bits, by their names in Linux."""
_ARM = ("aarch64", "arm64", "armv7l", "armv8l")
_SIGNED_PROVIDERS = ("TensorrtExecutionProvider", "CUDAExecutionProvider")


@dataclass(frozen=True)
class Int8Scheme:
    """The form of int8 for a device.

    Attributes:
        signed: activations are int8 with zero point 0 (ARM, NVIDIA), else uint8 with any zero point (x86).
        reduce_range: weights have 7 bits, for instructions that saturate.
        reason: what is known about the processor, in words.
        dot_products: whether it has instructions for sums of 8-bit products; None if that is not known.
    """

    signed: bool
    reduce_range: bool
    reason: str
    dot_products: bool | None = None


def int8_scheme(fingerprint: Mapping[str, Any]) -> Int8Scheme:
    """The scheme for a device, from the `provider`, `cpu_architecture` and `instructions` of its fingerprint.

    If its instructions are unknown, weights on x86 have 7 bits, which is correct on every processor.
    """
    provider = fingerprint.get("provider") or "CPUExecutionProvider"
    if provider in _SIGNED_PROVIDERS:
        return Int8Scheme(signed=True, reduce_range=False, reason=f"{provider} needs symmetric int8")
    signed = fingerprint.get("cpu_architecture") in _ARM
    instructions = fingerprint.get("instructions")
    if instructions is None:
        return Int8Scheme(signed, not signed, "it is not known whether this processor has 8-bit dot products")
    found = [name for flag, name in DOT_PRODUCTS.items() if flag in instructions]
    if found:
        return Int8Scheme(signed, False, f"this processor has {found[0]}", dot_products=True)
    missing = "asimddp" if signed else "VNNI"
    return Int8Scheme(signed, not signed, f"this processor has no 8-bit dot products ({missing})", dot_products=False)
