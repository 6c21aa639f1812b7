"""PSNR and SSIM of Y between upscaled and true images, as papers on super-resolution report them."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

PEAK = 255.0
WINDOW, SIGMA = 11, 1.5
K1, K2 = 0.01, 0.03


def luma(pixels: Tensor) -> Tensor:
    """Y of ITU-R BT.601 with 16 for black and 235 for white: Y = 16 + (65.481 R + 128.553 G + 24.966 B) / 255.

    The formula of MATLAB's rgb2ycbcr without its rounding. PIL's YCbCr differs: it has the range 0 to 255.

    Args:
        pixels: R, G and B from 0 to 255, `(..., 3, H, W)`.

    Returns:
        float64 `(..., 1, H, W)`, or float32 for pixels that are float32.
    """
    dtype = torch.float32 if pixels.dtype == torch.float32 else torch.float64
    weights = torch.tensor([65.481, 128.553, 24.966], dtype=dtype, device=pixels.device) / 255
    return 16 + (pixels.to(dtype) * weights.view(3, 1, 1)).sum(-3, keepdim=True)


def evaluated_luma(image: Tensor) -> Tensor:
    """The Y of an image, on which metrics are computed.

    Args:
        image: from 0 to 1. RGB `(3, H, W)` is first rounded and clamped to bytes, as a file would store it;
            Y `(1, H, W)` is clamped, but not rounded.

    Returns:
        Y from 0 to 255, float64 `(H, W)`; NaN stays NaN.
    """
    scaled = image.double() * PEAK
    if len(image) == 1:
        return scaled.clamp(0, PEAK)[0]
    return luma(scaled.round().clamp(0, PEAK))[0]


def crop_border(image: Tensor, border: int) -> Tensor:
    """An image without its border.

    Args:
        image: `(H, W)`.
        border: pixels to remove on each side.

    Raises:
        ValueError: nothing would be left.
    """
    height, width = image.shape
    if min(height, width) <= 2 * border:
        raise ValueError(f"an image of {width}x{height} pixels is too small to remove a border of {border}")
    return image[border : height - border, border : width - border]


def psnr(image: Tensor, true: Tensor) -> float:
    """Peak signal-to-noise ratio in dB, 10 log10(255^2 / mean squared error); inf for equal images.

    Args:
        image: on the scale of 0 to 255.
        true: of the same shape and scale.
    """
    error = float((image.double() - true.double()).square().mean())
    return math.inf if error == 0 else 10 * math.log10(PEAK**2 / error)


def ssim(image: Tensor, true: Tensor) -> float:
    """Structural similarity, at most 1: the mean over all windows inside the image.

    Wang et al., "Image Quality Assessment: From Error Visibility to Structural Similarity", equations 13 to 16:
    Gaussian windows of 11x11 with sigma 1.5, C1 = (0.01 * 255)^2, C2 = (0.03 * 255)^2,
    (2 mx my + C1)(2 sxy + C2) / ((mx^2 + my^2 + C1)(sx^2 + sy^2 + C2)).

    Args:
        image: float `(H, W)` on the scale of 0 to 255.
        true: of the same shape and scale.

    Raises:
        ValueError: a side is shorter than the window.
    """
    if min(image.shape) < WINDOW:
        raise ValueError(f"SSIM needs at least {WINDOW}x{WINDOW} pixels, not {image.shape[1]}x{image.shape[0]}")
    x, y = image.double(), true.double()
    mx, my, xx, yy, xy = _windowed(torch.stack([x, y, x * x, y * y, x * y]))
    c1, c2 = (K1 * PEAK) ** 2, (K2 * PEAK) ** 2
    means, spreads = mx * mx + my * my, xx - mx * mx + yy - my * my
    similarity = (2 * mx * my + c1) * (2 * (xy - mx * my) + c2) / ((means + c1) * (spreads + c2))
    return float(similarity.mean())


def _windowed(images: Tensor) -> Tensor:
    """Gaussian means of `(N, H, W)` over all windows, `(N, H - 10, W - 10)`."""
    offsets = torch.arange(WINDOW, dtype=images.dtype, device=images.device) - WINDOW // 2
    window = torch.exp(-(offsets**2) / (2 * SIGMA**2))
    window = window / window.sum()
    columns = F.conv2d(images[:, None], window.view(1, 1, -1, 1))
    return F.conv2d(columns, window.view(1, 1, 1, -1))[:, 0]
