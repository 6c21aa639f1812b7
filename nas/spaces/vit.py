"""A vision transformer with elastic embedding, heads, hidden layers and depth.

Chen, Peng, Fu & Ling, "AutoFormer: Searching Transformers for Visual Recognition", ICCV 2021, table 1.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

from pydantic import PositiveInt
from torch import Tensor, nn

from espalier.nas.architecture import Architecture
from espalier.nas.choices import ElasticChoice
from espalier.nas.elastic.attention import ElasticAttention, ElasticMLP
from espalier.nas.elastic.depth import ElasticDepth
from espalier.nas.elastic.dims import Dim
from espalier.nas.elastic.layer import ElasticGate, Mode
from espalier.nas.elastic.linear import ElasticLinear, ElasticParameter
from espalier.nas.elastic.norm import ElasticLayerNorm
from espalier.nas.errors import UserError
from espalier.nas.gates import Gates
from espalier.nas.space import SearchSpace
from espalier.nas.spaces.options import Factors, Sizes

STD = 0.02
"""Standard deviation of fresh weights, which are truncated at two of them, as in the paper's code."""


@dataclass(frozen=True)
class Variant:
    """The options of a search space.

    Attributes:
        embeddings: features of a token.
        ratios: hidden features of a block for each feature of a token.
        heads: heads of a block.
        depths: numbers of blocks.
    """

    embeddings: tuple[int, ...]
    ratios: tuple[float, ...]
    heads: tuple[int, ...]
    depths: tuple[int, ...]


VARIANTS = {
    "tiny": Variant((192, 216, 240), (3.5, 4.0), (3, 4), (12, 13, 14)),
    "small": Variant((320, 384, 448), (3.0, 3.5, 4.0), (5, 6, 7), (12, 13, 14)),
}
"""The paper's spaces."""


class ViT(SearchSpace):
    """Patch embedding, `depth` pre-norm blocks, a norm, the mean over all tokens, a linear head.

    The choices are one `embedding` for all blocks, `heads_1`, `ratio_1`, `heads_2`, ... for each block, and `depth`. A
    head has `head_size` features for every embedding; a hidden layer has `int(embedding * ratio)`. There is no class
    token, and only absolute position embeddings (the paper's networks add relative ones).

    Args:
        input_shape: `(channels, height, width)` of an image.
        num_classes: number of outputs.
        variant: the space of the paper that provides the defaults of the next four options.
        embeddings: features of a token to choose from.
        ratios: hidden features of a block for each feature of a token.
        heads: heads of a block.
        depths: numbers of blocks.
        head_size: features of a head.
        patch: height and width of a patch, in pixels.
        entanglement: what a mixture of sizes does, see `espalier.nas.elastic.layer.Mode`.

    Raises:
        UserError: height or width is not a multiple of the patch size.
    """

    def __init__(
        self,
        input_shape: tuple[int, int, int] = (3, 224, 224),
        num_classes: int = 1000,
        *,
        variant: Literal["tiny", "small"] = "tiny",
        embeddings: Sizes | None = None,
        ratios: Factors | None = None,
        heads: Sizes | None = None,
        depths: Sizes | None = None,
        head_size: PositiveInt = 64,
        patch: PositiveInt = 16,
        entanglement: Mode = "gate",
    ) -> None:
        super().__init__()
        channels, height, width = input_shape
        if height % patch or width % patch:
            raise UserError(
                "space.patch",
                f"images of {height}x{width} cannot be divided into patches of {patch}x{patch}",
                code="unsupported",
            )
        self.input_shape = input_shape
        self.num_classes = num_classes
        of = VARIANTS[variant]
        self.embedding = ElasticChoice("embedding", embeddings or of.embeddings)
        features = Dim([self.embedding])
        tokens = (height // patch) * (width // patch)
        self.patches = nn.PixelUnshuffle(patch)
        self.embed = ElasticLinear(channels * patch**2, features, mode=entanglement)
        self.position = ElasticParameter((tokens,), features, std=STD, mode=entanglement)
        self.gate = ElasticGate(features, mode=entanglement, axis=-1)
        depths = depths or of.depths
        blocks = []
        for i in range(1, depths[-1] + 1):
            count = Dim([ElasticChoice(f"heads_{i}", heads or of.heads)])
            ratio = ElasticChoice(f"ratio_{i}", tuple(float(factor) for factor in ratios or of.ratios))
            hidden = Dim([self.embedding, ratio], lambda size, factor: int(size * factor))
            blocks.append(Block(features, count, hidden, head_size=head_size, mode=entanglement))
        self.depth = ElasticDepth(ElasticChoice("depth", depths), blocks, mode=entanglement)
        self.norm = ElasticLayerNorm(features)
        self.head = ElasticLinear(features, num_classes, mode=entanglement)
        _fresh(self)

    def forward(self, x: Tensor, gates: Gates) -> Tensor:
        # Contiguous, so that torch adds the bias in the matrix product, as counted.
        tokens = self.patches(x).flatten(2).transpose(1, 2).contiguous()
        x = self.gate(self.embed(tokens, gates) + self.position(gates), gates)
        x = self.depth(x, gates)
        return self.head(self.norm(x, gates).mean(dim=1), gates)

    def inactive(self, architecture: Architecture) -> Collection[str]:
        """The choices of the blocks that the depth leaves out."""
        depth = int(architecture["depth"])  # type: ignore[arg-type]
        return [f"{kind}_{i + 1}" for i in range(depth, len(self.depth.blocks)) for kind in ("heads", "ratio")]

    def initialise(self, network: nn.Module) -> None:
        """Initialise matrices and positions from N(0, 0.02^2), truncated at 2 sigma, and biases to 0."""
        super().initialise(network)
        _fresh(network)
        nn.init.trunc_normal_(network.get_parameter("position"), std=STD)


class Block(nn.Module):
    """Attention and an MLP, each after a norm and added to its input; see `espalier.nas.elastic.attention`.

    Args:
        embedding: features of the tokens.
        heads: number of attention heads.
        hidden: features of the hidden layer.
        head_size: features of a head.
        mode: what a mixture of sizes does.
    """

    def __init__(self, embedding: Dim, heads: Dim, hidden: Dim, *, head_size: int, mode: Mode) -> None:
        super().__init__()
        self.norm_1 = ElasticLayerNorm(embedding)
        self.attention = ElasticAttention(embedding, heads, head_size=head_size, mode=mode)
        self.norm_2 = ElasticLayerNorm(embedding)
        self.mlp = ElasticMLP(embedding, hidden, mode=mode)
        self.gate = ElasticGate(embedding, mode=mode, axis=-1)

    def forward(self, x: Tensor, gates: Gates, strength: Tensor | None) -> Tensor:
        """The output of the block.

        Args:
            x: `(batch, tokens, embedding)`.
            gates: of this forward pass.
            strength: scales what is added to the input; None for 1.
        """
        x = x + self._branch(self.attention(self.norm_1(x, gates), gates), gates, strength)
        return x + self._branch(self.mlp(self.norm_2(x, gates), gates), gates, strength)

    def _branch(self, y: Tensor, gates: Gates, strength: Tensor | None) -> Tensor:
        y = self.gate(y, gates)
        return y if strength is None else strength * y


def _fresh(network: nn.Module) -> None:
    for module in network.modules():
        if isinstance(module, nn.Linear | ElasticLinear):
            nn.init.trunc_normal_(module.weight, std=STD)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
