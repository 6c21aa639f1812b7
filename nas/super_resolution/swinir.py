"""SwinIR, light: attention in windows that are shifted by half of one in every second block.

Liang et al., "SwinIR: Image Restoration Using Swin Transformer", https://arxiv.org/abs/2108.10257. Parameters have the
names of the authors' code.
"""

from __future__ import annotations

from typing import Annotated

import torch
import torch.nn.functional as F
from pydantic import Field, PositiveInt
from torch import Tensor, nn

from espalier.nas.errors import UserError
from espalier.nas.super_resolution.edsr import DIV2K_MEAN, conv3x3

BLOCKED = -100.0
"""Added to the attention logits of two pixels that only the shift has brought into one window."""


def windows(x: Tensor, size: int) -> Tensor:
    """`(B, H, W, C)` to `(B * H / size * W / size, size * size, C)`, the windows row by row."""
    _, height, width, channels = x.shape
    x = x.view(-1, height // size, size, width // size, size, channels).transpose(2, 3)
    return x.reshape(-1, size * size, channels)


def joined(x: Tensor, size: int, height: int, width: int) -> Tensor:
    """The inverse of `windows`, `(B, H, W, C)`."""
    x = x.view(-1, height // size, width // size, size, size, x.shape[-1]).transpose(2, 3)
    return x.reshape(-1, height, width, x.shape[-1])


def shift_mask(height: int, width: int, size: int, device: torch.device) -> Tensor:
    """The mask of a shifted image's attention logits, `(windows, 1, size^2, size^2)`: 0 or `BLOCKED`.

    After a shift by size / 2, the last window of each row and column contains pixels from both edges of the image.
    """

    def parts(length: int) -> Tensor:
        place = torch.arange(length, device=device)
        return (place >= length - size).int() + (place >= length - size // 2).int()

    regions = 3 * parts(height)[:, None] + parts(width)[None, :]
    of_windows = windows(regions[None, :, :, None], size)  # (windows, size^2, 1)
    apart = of_windows != of_windows.transpose(1, 2)
    return BLOCKED * apart[:, None].float()


def relative_positions(size: int) -> Tensor:
    """The row of the bias table for each pair of pixels, by their difference; int64 `(size^2, size^2)`."""
    axis = torch.arange(size)
    rows, columns = (grid.flatten() for grid in torch.meshgrid(axis, axis, indexing="ij"))
    down, right = rows[:, None] - rows + size - 1, columns[:, None] - columns + size - 1
    return down * (2 * size - 1) + right


class WindowAttention(nn.Module):
    """softmax(q k^T / sqrt(d) + B) v within windows, with a learned B for each head and relative position."""

    index: Tensor

    def __init__(self, channels: int, heads: int, size: int) -> None:
        super().__init__()
        self.heads = heads
        self.relative_position_bias_table = nn.Parameter(torch.zeros((2 * size - 1) ** 2, heads))
        nn.init.trunc_normal_(self.relative_position_bias_table, std=0.02)
        self.qkv = nn.Linear(channels, 3 * channels)
        self.proj = nn.Linear(channels, channels)
        self.register_buffer("index", relative_positions(size), persistent=False)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """X `(B * windows, N, C)`; mask `(windows, 1, N, N)`, or None for none."""
        places, channels = x.shape[1:]
        q, k, v = self.qkv(x).view(-1, places, 3, self.heads, channels // self.heads).permute(2, 0, 3, 1, 4)
        bias = self.relative_position_bias_table[self.index.flatten()].view(places, places, self.heads)
        logits = (q * (channels // self.heads) ** -0.5) @ k.transpose(-2, -1) + bias.permute(2, 0, 1)
        if mask is not None:
            logits = (logits.view(-1, *mask.shape[:1], *logits.shape[1:]) + mask).view(logits.shape)
        y = logits.softmax(dim=-1) @ v
        return self.proj(y.transpose(1, 2).reshape(-1, places, channels))


class Mlp(nn.Module):
    """Two linear layers with GELU between them."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(channels, hidden)
        self.act = nn.GELU()
        self.fc2 = nn.Linear(hidden, channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(self.act(self.fc1(x)))


class SwinBlock(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x)), with stochastic depth in training."""

    def __init__(
        self, channels: int, heads: int, size: int, mlp_ratio: float, *, shifted: bool, drop_path: float
    ) -> None:
        from timm.layers import DropPath

        super().__init__()
        self.size = size
        self.shift = size // 2 if shifted else 0
        self.norm1 = nn.LayerNorm(channels)
        self.attn = WindowAttention(channels, heads, size)
        self.norm2 = nn.LayerNorm(channels)
        self.mlp = Mlp(channels, int(channels * mlp_ratio))
        self.drop_path = DropPath(drop_path) if drop_path else nn.Identity()

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """X `(B, H, W, C)`, H and W multiples of the window; mask: see `shift_mask`."""
        height, width = x.shape[1:3]
        y = self.norm1(x)
        if self.shift:
            y = torch.roll(y, (-self.shift, -self.shift), (1, 2))
        y = self.attn(windows(y, self.size), mask if self.shift else None)
        y = joined(y, self.size, height, width)
        if self.shift:
            y = torch.roll(y, (self.shift, self.shift), (1, 2))
        x = x + self.drop_path(y)
        return x + self.drop_path(self.mlp(self.norm2(x)))


class BlockGroup(nn.Module):
    """A sequence of blocks, of which every second one is shifted."""

    def __init__(self, channels: int, heads: int, size: int, mlp_ratio: float, drop_paths: list[float]) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            SwinBlock(channels, heads, size, mlp_ratio, shifted=i % 2 == 1, drop_path=rate)
            for i, rate in enumerate(drop_paths)
        )

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x, mask)
        return x


class RSTB(nn.Module):
    """Residual Swin transformer block: x + conv(blocks(x)) on `(B, H, W, C)`."""

    def __init__(self, channels: int, heads: int, size: int, mlp_ratio: float, drop_paths: list[float]) -> None:
        super().__init__()
        self.residual_group = BlockGroup(channels, heads, size, mlp_ratio, drop_paths)
        self.conv = conv3x3(channels, channels)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        y = self.residual_group(x, mask).permute(0, 3, 1, 2)
        return x + self.conv(y).permute(0, 2, 3, 1)


class PatchEmbed(nn.Module):
    """The norm before the first block; patches are single pixels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x)


class SwinIRLight(nn.Module):
    """Upscales RGB from 0 to 1, `(B, 3, h, w)`, to RGB `(B, 3, s h, s w)`, which is not clamped.

    The defaults are those of the paper. Images are padded by reflection on the right and at the bottom to multiples of
    the window, and cropped again; their sides must be longer than half a window.

    Args:
        scale: s.
        groups: number of RSTBs.
        depth: Swin blocks in each RSTB.
        channels: of all layers.
        heads: of each attention.
        window: its side in pixels, even.
        mlp_ratio: hidden channels of the MLPs, as a multiple of `channels`.
        drop_path: rate of stochastic depth in the last block, as in the authors' code; it increases linearly from 0 in
            the first block.

    Raises:
        UserError: channels that are not divisible by the heads, an odd window, or a scale below 2.
    """

    mean: Tensor

    def __init__(
        self,
        scale: int,
        *,
        groups: PositiveInt = 4,
        depth: PositiveInt = 6,
        channels: PositiveInt = 60,
        heads: PositiveInt = 6,
        window: Annotated[int, Field(ge=2)] = 8,
        mlp_ratio: Annotated[float, Field(ge=1, le=16)] = 2.0,
        drop_path: Annotated[float, Field(ge=0, lt=1)] = 0.1,
    ) -> None:
        super().__init__()
        if channels % heads:
            raise UserError("channels", f"{channels} is not divisible by {heads} heads", code="conflict")
        if window % 2:
            raise UserError("window", f"must be even, since windows are shifted by half of it, not {window}")
        if scale < 2:
            raise UserError("scale", f"must be at least 2, not {scale}", code="out_of_range")
        self.window = window
        self.scale = scale
        self.conv_first = conv3x3(3, channels)
        self.patch_embed = PatchEmbed(channels)
        blocks = groups * depth
        rates = [drop_path * i / max(1, blocks - 1) for i in range(blocks)]
        self.layers = nn.ModuleList(
            RSTB(channels, heads, window, mlp_ratio, rates[i * depth : (i + 1) * depth]) for i in range(groups)
        )
        self.norm = nn.LayerNorm(channels)
        self.conv_after_body = conv3x3(channels, channels)
        self.upsample = nn.Sequential(conv3x3(channels, 3 * scale**2), nn.PixelShuffle(scale))
        self.register_buffer("mean", torch.tensor(DIV2K_MEAN).view(1, 3, 1, 1), persistent=False)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[2:]
        below, right = (-height) % self.window, (-width) % self.window
        if below or right:
            x = F.pad(x, (0, right, 0, below), mode="reflect")
        x = self.conv_first(x - self.mean)
        mask = shift_mask(x.shape[2], x.shape[3], self.window, x.device)
        y = self.patch_embed(x.permute(0, 2, 3, 1))
        for layer in self.layers:
            y = layer(y, mask)
        x = self.conv_after_body(self.norm(y).permute(0, 3, 1, 2)) + x
        x = self.upsample(x) + self.mean
        return x[:, :, : self.scale * height, : self.scale * width]
