"""The parts of an elastic transformer block: attention with elastic heads, and an elastic MLP."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from espalier.nas.elastic.dims import Dim
from espalier.nas.elastic.layer import ElasticGate, Mode
from espalier.nas.elastic.linear import ElasticLinear
from espalier.nas.gates import Gates


class ElasticAttention(nn.Module):
    """Self-attention with an elastic number of heads of a fixed size; fewer heads are a part of more heads.

        MHA(x) = sum_j W_o[:, j] softmax(q_j k_j^T / sqrt(head size)) v_j + b_o

    Queries, keys and values have separate weights, in which a head is a block of rows, so that no number of heads cuts
    through one. In the mode `gate`, the output of head j is weighted by its coverage, which gives the mixture of the
    outputs; in `superpose`, the coverage enters queries, keys, values and the projection.

    Args:
        embedding: features of the tokens.
        heads: number of heads.
        head_size: features of a head.
        mode: what a mixture of sizes does.
    """

    def __init__(self, embedding: Dim, heads: Dim, *, head_size: int, mode: Mode) -> None:
        super().__init__()
        inner = heads.times(head_size)
        self.queries = ElasticLinear(embedding, inner, mode=mode)
        self.keys = ElasticLinear(embedding, inner, mode=mode)
        self.values = ElasticLinear(embedding, inner, mode=mode)
        self.attend = Attend(inner, head_size=head_size)
        self.gate = ElasticGate(inner, mode=mode, axis=-1)
        self.project = ElasticLinear(inner, embedding, mode=mode)

    def forward(self, x: Tensor, gates: Gates) -> Tensor:
        """`(batch, tokens, embedding)`, the same shape."""
        y = self.attend(self.queries(x, gates), self.keys(x, gates), self.values(x, gates), gates)
        return self.project(self.gate(y, gates), gates)


class Attend(nn.Module):
    """softmax(q k^T / sqrt(head size)) v for each head; without parameters.

    Args:
        inner: features of all heads together.
        head_size: features of one head.
    """

    def __init__(self, inner: Dim, *, head_size: int) -> None:
        super().__init__()
        self.inner = inner
        self.head_size = head_size

    def forward(self, q: Tensor, k: Tensor, v: Tensor, gates: Gates) -> Tensor:
        """Each `(batch, tokens, inner)`, the same shape."""
        heads = self.inner.size(gates) // self.head_size
        q, k, v = (part.unflatten(-1, (heads, self.head_size)).transpose(1, 2) for part in (q, k, v))
        return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)


class ElasticMLP(nn.Module):
    """Two linear layers with GELU between them, `W_2 gelu(W_1 x + b_1) + b_2`.

    Args:
        embedding: features of the tokens.
        hidden: features of the hidden layer.
        mode: what a mixture of sizes does.
    """

    def __init__(self, embedding: Dim, hidden: Dim, *, mode: Mode) -> None:
        super().__init__()
        self.widen = ElasticLinear(embedding, hidden, mode=mode)
        self.act = nn.GELU()
        self.gate = ElasticGate(hidden, mode=mode, axis=-1)
        self.narrow = ElasticLinear(hidden, embedding, mode=mode)

    def forward(self, x: Tensor, gates: Gates) -> Tensor:
        """`(batch, tokens, embedding)`, the same shape."""
        return self.narrow(self.gate(self.act(self.widen(x, gates)), gates), gates)
