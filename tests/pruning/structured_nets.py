"""Small networks of all the forms that structured pruning must know, with images of 16 x 16."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from espalier.pruning.structured.verify import randomise

SHAPE = (3, 16, 16)
CLASSES = 5


def conv_bn(into: int, out: int, kernel: int = 3, *, groups: int = 1, stride: int = 1) -> nn.Sequential:
    conv = nn.Conv2d(into, out, kernel, stride, kernel // 2, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(out), nn.ReLU())


class Head(nn.Sequential):
    def __init__(self, channels: int) -> None:
        super().__init__(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, CLASSES))


class Residual(nn.Module):
    def __init__(self, channels: int, hidden: int, groups: int = 1) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(channels, hidden, 3, padding=1, bias=False), nn.BatchNorm2d(hidden)
        self.conv2 = nn.Conv2d(hidden, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return F.relu(x + y)


class Excitation(nn.Module):
    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.reduce, self.expand = nn.Conv2d(channels, hidden, 1), nn.Conv2d(hidden, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.expand(F.relu(self.reduce(x.mean((2, 3), keepdim=True)))).sigmoid()


class Concatenated(nn.Module):
    """Two branches side by side, added to a third of their joint width."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = conv_bn(3, 16)
        self.left, self.right, self.both = conv_bn(16, 16), conv_bn(16, 8, 1), conv_bn(16, 24)
        self.head = Head(24)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        return self.head(torch.cat([self.left(x), self.right(x)], dim=1) + self.both(x))


class Split(nn.Module):
    """Chunks of channels with a convolution each, put together in another order."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = conv_bn(3, 24)
        self.parts = nn.ModuleDict({"0": nn.Conv2d(16, 16, 3, padding=1), "1": nn.Conv2d(8, 24, 1)})
        self.parts.splits = [16, 8]  # type: ignore[assignment]
        self.head = Head(40)

    def forward(self, x: Tensor) -> Tensor:
        chunks = torch.split(self.stem(x), self.parts.splits, dim=1)
        first, second = (part(chunk) for part, chunk in zip(self.parts.values(), chunks, strict=True))
        return self.head(torch.cat([second, first], dim=1))


class Cascade(nn.Module):
    """Res2Net's: equal chunks, each added to what came of the one before, the last as it is."""

    def __init__(self) -> None:
        super().__init__()
        self.width = 8
        self.stem, self.conv1, self.bn1 = conv_bn(3, 16), nn.Conv2d(16, 32, 1), nn.BatchNorm2d(32)
        self.convs = nn.ModuleList([nn.Conv2d(8, 8, 3, padding=1) for _ in range(3)])
        self.head = Head(32)

    def forward(self, x: Tensor) -> Tensor:
        chunks = torch.split(F.relu(self.bn1(self.conv1(self.stem(x)))), self.width, 1)
        y = torch.zeros_like(chunks[0])
        done = []
        for index, conv in enumerate(self.convs):
            y = F.relu(conv(chunks[0] if index == 0 else y + chunks[index]))
            done.append(y)
        return self.head(torch.cat([*done, chunks[-1]], dim=1))


class Ghost(nn.Module):
    """Half of the channels cheaply from the other half, then a convolution that sees each alone."""

    def __init__(self) -> None:
        super().__init__()
        self.primary, self.cheap = conv_bn(3, 16), conv_bn(16, 16, groups=16)
        self.each, self.last = conv_bn(32, 32, groups=32), conv_bn(32, 24, 1)
        self.head = Head(24)

    def forward(self, x: Tensor) -> Tensor:
        x = self.primary(x)
        return self.head(self.last(self.each(torch.cat([x, self.cheap(x)], dim=1)[:, :32])))


class ChannelsLast(nn.Module):
    """Every second row and column of images whose channels are last."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.mix, self.head = nn.Conv2d(3, 24, 3, padding=1), nn.Linear(24, 32), nn.Linear(32, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.mix(self.stem(x).permute(0, 2, 3, 1)))[:, ::2, ::2]
        return self.head(x.flatten(1, 2)).mean(dim=1)


class Response(nn.Module):
    """ConvNeXt-V2's norm between two layers."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.wide, self.norm = conv_bn(3, 16), nn.Conv2d(16, 32, 1), GlobalResponseNorm(32)
        self.narrow, self.head = nn.Conv2d(32, 16, 1), Head(16)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        return self.head(x + self.narrow(self.norm(F.gelu(self.wide(x)))))


class GlobalResponseNorm(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channel_dim = 1
        self.weight, self.bias = nn.Parameter(torch.zeros(channels)), nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        norm = x.norm(dim=(2, 3), keepdim=True)
        shares = norm / norm.mean(dim=self.channel_dim, keepdim=True)
        return x + self.bias.view(1, -1, 1, 1) + self.weight.view(1, -1, 1, 1) * x * shares


class Attention(nn.Module):
    def __init__(self, dim: int, heads: int, head_dim: int) -> None:
        super().__init__()
        self.num_heads, self.head_dim, self.attn_dim = heads, head_dim, heads * head_dim
        self.qkv, self.proj = nn.Linear(dim, 3 * heads * head_dim), nn.Linear(heads * head_dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        n, tokens, _ = x.shape
        q, k, v = self.qkv(x).reshape(n, tokens, 3, self.num_heads, self.head_dim).permute(2, 0, 3, 1, 4).unbind(0)
        y = F.scaled_dot_product_attention(q, k, v)
        return self.proj(y.transpose(1, 2).reshape(n, tokens, self.attn_dim))


class Mlp(nn.Module):
    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(dim, hidden), nn.Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x)))


class Transformer(nn.Module):
    def __init__(self, dim: int = 32, depth: int = 2) -> None:
        super().__init__()
        self.embed = nn.Conv2d(3, dim, 4, 4)
        self.position = nn.Parameter(torch.randn(1, 16, dim))
        self.blocks = nn.ModuleList([TransformerBlock(dim) for _ in range(depth)])
        self.norm, self.head = nn.LayerNorm(dim), nn.Linear(dim, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x).flatten(2).transpose(1, 2) + self.position
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x).mean(dim=1))


class TransformerBlock(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm1, self.attn = nn.LayerNorm(dim), Attention(dim, 4, 8)
        self.norm2, self.mlp = nn.LayerNorm(dim), Mlp(dim, 64)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class Shared(nn.Module):
    """One convolution used twice, and two linear layers with one weight."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.twice = conv_bn(3, 16), conv_bn(16, 16)
        self.wide = conv_bn(16, 32)
        self.first, self.second = nn.Conv2d(32, 32, 1), nn.Conv2d(32, 32, 1)
        self.second.weight = self.first.weight
        self.head = Head(32)

    def forward(self, x: Tensor) -> Tensor:
        x = self.wide(self.twice(self.twice(self.stem(x))))
        return self.head(self.second(F.relu(self.first(x))))


class Untraceable(nn.Module):
    """A graph that autograd does not see."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = conv_bn(3, 16), Head(16)

    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x))


class Crossed(nn.Module):
    """Channels that meet outside any layer: no channel of `first` can leave without changing what the others become."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.head = conv_bn(3, 16), conv_bn(16, 32), Head(32)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.second(self.first(x).softmax(dim=1)))


def chain() -> nn.Module:
    return nn.Sequential(conv_bn(3, 16), conv_bn(16, 32, stride=2), conv_bn(32, 24), Head(24))


def residual() -> nn.Module:
    return nn.Sequential(conv_bn(3, 16), Residual(16, 24), Residual(16, 32), Head(16))


def depthwise() -> nn.Module:
    return nn.Sequential(conv_bn(3, 16), conv_bn(16, 48, 1), conv_bn(48, 48, groups=48), conv_bn(48, 16, 1), Head(16))


def grouped() -> nn.Module:
    return nn.Sequential(conv_bn(3, 32), conv_bn(32, 64, groups=8), conv_bn(64, 32, 1), Head(32))


def transposed() -> nn.Module:
    up = nn.ConvTranspose2d(16, 32, 2, 2)
    across = nn.ConvTranspose2d(32, 32, 2, 2, groups=32)
    return nn.Sequential(conv_bn(3, 16, stride=2), up, nn.ReLU(), across, nn.PReLU(32), Head(32))


def excited() -> nn.Module:
    return nn.Sequential(conv_bn(3, 32), Excitation(32, 8), conv_bn(32, 32), Excitation(32, 4), Head(32))


def flattened() -> nn.Module:
    return nn.Sequential(conv_bn(3, 16, stride=4), nn.Flatten(), nn.Linear(256, 32), nn.ReLU(), nn.Linear(32, CLASSES))


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "chain": chain,
    "residual": residual,
    "depthwise": depthwise,
    "grouped": grouped,
    "transposed": transposed,
    "excited": excited,
    "flattened": flattened,
    "concatenated": Concatenated,
    "split": Split,
    "cascade": Cascade,
    "ghost": Ghost,
    "channels_last": ChannelsLast,
    "response": Response,
    "transformer": Transformer,
    "shared": Shared,
}


def network(name: str, seed: int = 0) -> nn.Module:
    """The network in evaluation mode, with random weights and statistics."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = NETWORKS[name]()
    randomise(model, torch.Generator().manual_seed(seed))
    return model.eval()
