"""Replacing parts of NNI's frozen models that are not plain torch, or have another size than needed."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn


def repair(network: Any, input_shape: tuple[int, int, int], num_classes: int) -> nn.Module:
    """The model with traceable parts, the right number of outputs, and plain Python numbers in its layers.

    Args:
        network: a frozen model of NNI; changed in place.
        input_shape: `(channels, height, width)` of an image.
        num_classes: number of outputs.
    """
    from nni.nas.hub.pytorch.autoformer import RelativePosition2D
    from nni.nas.hub.pytorch.modules.nasbench101 import _NasBench101CellFixed
    from nni.nas.hub.pytorch.nasnet import NDS
    from nni.nas.hub.pytorch.utils.nn import DropPath

    if isinstance(network, NDS) and network.classifier.out_features != num_classes:  # 10 or 1,000 by its data set
        network.classifier = nn.Linear(network.classifier.in_features, num_classes)
    for path, module in list(network.named_modules()):
        _plain_numbers(module)
        if isinstance(module, DropPath):
            network.set_submodule(path, SampleDropout(module.drop_prob))
        elif isinstance(module, RelativePosition2D):
            network.set_submodule(path, RelativePositions(module, input_shape[1] // network.patch_embed.stride[0]))
        elif isinstance(module, _NasBench101CellFixed):
            network.set_submodule(path, NasBench101Cell(module))
    return network


class SampleDropout(nn.Module):
    """Stochastic depth: the residual of a whole image is dropped with probability `p`, else scaled by `1/(1 - p)`.

    Huang et al., "Deep Networks with Stochastic Depth", ECCV 2016. It is a dropout of channels, applied to images.
    """

    def __init__(self, p: float) -> None:
        super().__init__()
        self.drop = nn.Dropout1d(p)

    def forward(self, x: Tensor) -> Tensor:
        return self.drop(x.flatten(1)).view_as(x)


class RelativePositions(nn.Module):
    """AutoFormer's relative position embedding for images of `side` x `side` patches behind a class token.

    `r[q, k] = v[clip(row k - row q)] + h[clip(column k - column q)]`, clipped to +-length and shifted to indices from
    1; index 0 is the class token's (Wu et al., "Rethinking and Improving Relative Position Encoding for Vision
    Transformer", ICCV 2021). The indices are constants here. NNI computes them from Python integers at every call,
    which neither `torch.fx` nor the exporters can trace.
    """

    v_index: Tensor
    h_index: Tensor

    def __init__(self, original: Any, side: int) -> None:
        super().__init__()
        self.embeddings_table_v = original.embeddings_table_v
        self.embeddings_table_h = original.embeddings_table_h
        place = torch.arange(side * side, device="cpu")
        self.register_buffer("v_index", _distances(place // side, original.length))
        self.register_buffer("h_index", _distances(place % side, original.length))

    def forward(self, queries: int, keys: int) -> Tensor:
        """Embeddings `(side^2 + 1, side^2 + 1, head dimension)`; the numbers of tokens are fixed."""
        return self.embeddings_table_v[self.v_index] + self.embeddings_table_h[self.h_index]


class NasBench101Cell(nn.Module):
    """A cell of NAS-Bench-101: vertex 0 is its input, the last one its output (Ying et al., ICML 2019, section 2.2).

    An inner vertex applies its operation to the sum of its inputs. The output is the concatenation of the inner
    vertices with an edge to it, plus the input if it has one. The cell's input is projected to the channels of its
    target; inner vertices with one channel more than their target are cut. NNI's cell decides this by the sizes of
    tensors, which `torch.fx` cannot trace.
    """

    def __init__(self, original: Any) -> None:
        super().__init__()
        self.projections = original.projections
        self.ops = original.ops
        self.channels = [int(channels) for channels in original.hidden_features]
        self.sources = [[i for i, edge in enumerate(column) if edge] for column in original.connection_matrix.T]

    def forward(self, x: Tensor) -> Tensor:
        vertices = [x]
        for t in range(1, len(self.ops)):
            inputs = [vertices[s][:, : self.channels[t]] for s in self.sources[t] if s > 0]
            if 0 in self.sources[t]:
                inputs.append(self.projections[t](x))
            vertices.append(self.ops[t](sum(inputs[1:], inputs[0])))
        inner = [vertices[s] for s in self.sources[-1] if s > 0]
        outputs = [torch.cat(inner, 1)] if inner else []
        if 0 in self.sources[-1]:
            outputs.append(self.projections[-1](x))
        return sum(outputs[1:], outputs[0])


def _distances(place: Tensor, length: int) -> Tensor:
    distance = (place[None, :] - place[:, None]).clamp(-length, length) + length + 1
    return nn.functional.pad(distance, (1, 0, 1, 0))


def _plain_numbers(module: nn.Module) -> None:
    """Convert NumPy integers, which NNI computes for some widths, to Python integers: tracing needs them."""
    for name, value in vars(module).items():
        if isinstance(value, np.integer):
            setattr(module, name, int(value))
        elif isinstance(value, list | tuple) and any(isinstance(item, np.integer) for item in value):
            setattr(module, name, type(value)(int(item) if isinstance(item, np.integer) else item for item in value))
