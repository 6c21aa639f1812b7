"""Elastic convolutions, full or depthwise, in their channels and kernel size."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from espalier.nas.choices import ElasticChoice
from espalier.nas.elastic.dims import Coverage, Dim, as_dim
from espalier.nas.elastic.layer import ElasticLayer, Mode, copied
from espalier.nas.gates import Gates


class ElasticConv2d(ElasticLayer):
    """A convolution whose smaller versions use the leading channels and the centre of the kernel.

    With a stride of 1 its padding keeps height and width for every kernel size. In a mixture it is the padding of the
    largest open kernel, inside which smaller kernels are surrounded by zeros and so see the same pixels.

    Args:
        inputs: channels.
        outputs: channels.
        kernel: size, an odd number, or a dim of it (see `kernel_dim`).
        stride: as for any convolution.
        dilation: as for any convolution.
        inset: reduce the padding by this many pixels, so that the output is smaller by as much on each side.
        depthwise: convolve each channel alone; `inputs` and `outputs` must then be the same dim.
        bias: whether there is a bias.
        mode: what a mixture of channels does; kernels are always superposed.

    Raises:
        ValueError: an even kernel, or a depthwise convolution between different dims.
    """

    def __init__(
        self,
        inputs: int | Dim,
        outputs: int | Dim,
        kernel: int | Dim,
        *,
        stride: int = 1,
        dilation: int = 1,
        inset: int = 0,
        depthwise: bool = False,
        bias: bool = False,
        mode: Mode,
    ) -> None:
        super().__init__()
        if depthwise and inputs is not outputs:
            raise ValueError("a depthwise convolution has one dim for its inputs and outputs")
        rings = kernel_dim(size=lambda: kernel) if isinstance(kernel, int) else kernel
        into = as_dim(inputs)
        out = into if depthwise else as_dim(outputs)
        self.use_dims(into, out, rings)
        self.stride, self.dilation, self.inset, self.depthwise, self.mode = stride, dilation, inset, depthwise, mode
        side = 2 * rings.largest - 1
        self.weight = nn.Parameter(torch.empty(out.largest, 1 if depthwise else into.largest, side, side))
        self.bias = nn.Parameter(torch.empty(out.largest)) if bias else None
        offset = torch.arange(side) - side // 2
        self.register_buffer("_ring", torch.maximum(offset.abs()[:, None], offset.abs()), persistent=False)
        channels = [] if mode == "gate" else [out] if depthwise else [out, into]
        self._coverage = Coverage([*channels, rings])
        self._ring_axis = len(channels)
        self._bias_coverage = Coverage([out] if mode == "superpose" else [])
        self.reset_parameters()

    _ring: Tensor

    def reset_parameters(self) -> None:
        """Initialise as torch does, at the largest size."""
        nn.init.kaiming_uniform_(self.weight, a=5**0.5)
        if self.bias is not None:
            bound = self.weight[0].numel() ** -0.5
            nn.init.uniform_(self.bias, -bound, bound)

    def forward(self, x: Tensor, gates: Gates) -> Tensor:
        """`(batch, inputs, height, width)` to `(batch, outputs, height / stride, width / stride)`."""
        weight, bias = self.effective(gates)
        padding = self._padding(weight.shape[-1])
        groups = len(weight) if self.depthwise else 1
        return F.conv2d(x, weight, bias, self.stride, padding, self.dilation, groups)

    def effective(self, gates: Gates) -> tuple[Tensor, Tensor | None]:
        """The weight and bias under these gates."""
        weight, bias = self._cut(gates)
        return self._entangled(weight, gates), None if bias is None else self._bias_coverage.apply(bias, gates)

    def extract(self, gates: Gates) -> nn.Conv2d:
        """The plain convolution on a path."""
        weight, bias = self._cut(gates)
        out, into, side, _ = weight.shape
        layer = nn.Conv2d(
            out if self.depthwise else into,
            out,
            side,
            self.stride,
            self._padding(side),
            self.dilation,
            groups=out if self.depthwise else 1,
            bias=bias is not None,
            device="meta",
        )
        layer.weight, layer.bias = copied(weight), copied(bias)  # type: ignore[assignment]
        return layer

    def _padding(self, side: int) -> int:
        return self.dilation * (side // 2) - self.inset

    def _cut(self, gates: Gates) -> tuple[Tensor, Tensor | None]:
        into, out, rings = (dim.size(gates) for dim in self.dims)
        first = len(self._ring) // 2 - (rings - 1)
        weight = self.weight[:out] if self.depthwise else self.weight[:out, :into]
        side = slice(first, first + 2 * rings - 1)
        return weight[:, :, side, side], None if self.bias is None else self.bias[:out]

    def _entangled(self, weight: Tensor, gates: Gates) -> Tensor:
        """`W * M`, with the last axis of the mask, over the rings of the kernel, expanded to height and width."""
        first = (len(self._ring) - weight.shape[-1]) // 2
        side = slice(first, first + weight.shape[-1])
        for axes, mask in self._coverage(gates):
            shape = [1, 1, 1, 1]
            spread = mask[..., self._ring[side, side]] if axes[-1] == self._ring_axis else mask
            if axes[-1] == self._ring_axis:
                shape[2:] = spread.shape[-2:]
            for axis, size in zip(axes, mask.shape, strict=True):
                if axis != self._ring_axis:
                    shape[axis] = size
            weight = weight * spread.reshape(shape)
        return weight

    def extra_repr(self) -> str:
        return f"stride={self.stride}, dilation={self.dilation}, depthwise={self.depthwise}, mode={self.mode}"


def kernel_dim(*choices: ElasticChoice, size: Callable[..., int] | None = None) -> Dim:
    """The dim of a kernel's rings. A kernel of size k has (k + 1) / 2 of them, the centre included.

    Args:
        *choices: what the kernel size depends on; none for a fixed size.
        size: kernel size as a function of the choices' options; by default the option of the only choice.

    Raises:
        ValueError: a kernel size is even, so that the kernel has no centre.
    """
    measure = size or (lambda option: option)

    def rings(*options: float) -> int:
        kernel = measure(*options)
        if kernel % 2 == 0:
            raise ValueError(f"a kernel of size {kernel} has no centre")
        return (kernel + 1) // 2

    return Dim(choices, rings)
