from __future__ import annotations

from pathlib import Path
from typing import Literal

import pytest
import torch
from torch import Tensor, nn

from espalier.export.onnx import export_onnx
from espalier.nas.checkpoint import load_weights
from espalier.nas.errors import Code
from espalier.nas.models import network_factory
from espalier.nas.super_resolution import SuperResolution, WholeImages, load_pairs, on_luma, super_resolution_factory
from espalier.nas.super_resolution.swinir import SwinBlock, joined, shift_mask, windows
from user_errors import user_error

SMALL = {
    "edsr": "edsr:blocks=2,channels=8",
    "swinir": "swinir:groups=1,depth=2,channels=12,heads=2,window=4",
    "vdsr": "vdsr:layers=4,channels=8",
}


def params(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


@pytest.mark.parametrize(
    ("text", "scale", "count", "published"),
    [
        # EDSR's repository and paper: baseline 1.37 M, 1.55 M, 1.52 M; the large one 40.7 M, 43.7 M, 43.1 M
        ("edsr", 2, 1_369_859, 1.37),
        ("edsr", 3, 1_554_499, 1.55),
        ("edsr", 4, 1_517_571, 1.52),
        ("edsr:blocks=32,channels=256,residual_scale=0.1", 2, 40_729_603, 40.7),
        ("edsr:blocks=32,channels=256,residual_scale=0.1", 4, 43_089_923, 43.1),
        ("vdsr", 2, 664_704, 0.665),  # 665 K
    ],
)
def test_published_sizes(text: str, scale: int, count: int, published: float) -> None:
    network = super_resolution_factory(text, scale)()
    assert params(network) == count
    digits = 3 if published < 1 else 2 if published < 10 else 1
    assert round(count / 1e6, digits) == published


@pytest.mark.parametrize(("scale", "published"), [(2, 878), (3, 886), (4, 897)])
def test_swinir_has_the_published_size_without_its_bias_tables(scale: int, published: int) -> None:
    # Table 3 of the paper; 24 tables of 15^2 differences for 6 heads are not counted there
    network = super_resolution_factory("swinir", scale)()
    tables = sum(p.numel() for name, p in network.named_parameters() if name.endswith("bias_table"))
    assert tables == 24 * 225 * 6
    assert round((params(network) - tables) / 1000) == published


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("scale", [2, 3, 4])
def test_shapes(name: str, scale: int) -> None:
    torch.manual_seed(0)
    network = super_resolution_factory(SMALL[name], scale)().eval()
    if on_luma(network):
        assert network(torch.rand(2, 1, 10, 7)).shape == (2, 1, 10, 7)
    else:
        assert network(torch.rand(2, 3, 10, 7)).shape == (2, 3, scale * 10, scale * 7)


@pytest.mark.parametrize("exporter", ["torchscript", pytest.param("dynamo", marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("scale", [2, 3])
def test_export_at_any_batch(name: str, scale: int, exporter: Literal["torchscript", "dynamo"], tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = super_resolution_factory(SMALL[name], scale)()
    shape = (1, 16, 12) if on_luma(network) else (3, 10, 12)  # 10 is no multiple of the window
    exported = export_onnx(network, shape, tmp_path / "model.onnx", exporter=exporter)  # checked at 1 and 3 images
    assert not exported.parity.constant  # of normal pixels, most of them outside 0 to 1


@pytest.mark.slow
def test_export_at_a_fixed_batch(tmp_path: Path) -> None:
    import onnxruntime

    torch.manual_seed(0)
    network = super_resolution_factory(SMALL["swinir"], 2)().eval()
    x = torch.rand(1, 3, 8, 12)
    torch.onnx.export(network, (x,), str(tmp_path / "fixed.onnx"), dynamo=True, verbose=False)
    session = onnxruntime.InferenceSession(tmp_path / "fixed.onnx", providers=["CPUExecutionProvider"])
    [y] = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    with torch.no_grad():
        assert torch.allclose(torch.from_numpy(y), network(x), atol=1e-5)


def test_windows_and_back() -> None:
    x = torch.arange(2 * 8 * 12 * 3).view(2, 8, 12, 3)
    of = windows(x, 4)
    assert of.shape == (2 * 2 * 3, 16, 3)
    assert torch.equal(of[1].view(4, 4, 3), x[0, :4, 4:8])
    assert torch.equal(joined(of, 4, 8, 12), x)


def test_the_mask_lets_pixels_see_their_own_side() -> None:
    mask = shift_mask(8, 8, 4, torch.device("cpu"))
    assert mask.shape == (4, 1, 16, 16)
    assert not mask[0].any()  # the first window holds neighbours only
    assert mask.eq(0).float().mean(dim=(1, 2, 3)).tolist() == [1, 0.5, 0.5, 0.25]


def naive(block: SwinBlock, x: Tensor) -> Tensor:
    """The attention of a block on one image `(H, W, C)`, window by window in the image's own coordinates."""
    height, width, channels = x.shape
    size, shift, heads = block.size, block.shift, block.attn.heads
    y, out = block.norm1(x), torch.zeros_like(x)

    def edges(length: int) -> list[int]:
        return sorted({0, length, *range(shift, length, size)})

    for top, bottom in zip(edges(height), edges(height)[1:], strict=False):
        for left, right in zip(edges(width), edges(width)[1:], strict=False):
            places = [(i, j) for i in range(top, bottom) for j in range(left, right)]
            tokens = torch.stack([y[i, j] for i, j in places])
            q, k, v = (part.view(-1, heads, channels // heads) for part in block.attn.qkv(tokens).chunk(3, dim=1))
            result = []
            for head in range(heads):
                logits = q[:, head] @ k[:, head].T / (channels // heads) ** 0.5
                for a, (i, j) in enumerate(places):
                    for b, (m, n) in enumerate(places):
                        row = (i - m + size - 1) * (2 * size - 1) + j - n + size - 1
                        logits[a, b] += block.attn.relative_position_bias_table[row, head]
                result.append(logits.softmax(1) @ v[:, head])
            for (i, j), value in zip(places, block.attn.proj(torch.cat(result, 1)), strict=True):
                out[i, j] = value
    x = x + out
    return x + block.mlp(block.norm2(x))


@torch.no_grad()
@pytest.mark.parametrize("shifted", [False, True])
def test_a_block_attends_within_its_windows(shifted: bool) -> None:
    torch.manual_seed(0)
    block = SwinBlock(6, 2, 4, 2.0, shifted=shifted, drop_path=0.0)
    for parameter in block.parameters():
        parameter.normal_(std=0.5)
    x = torch.randn(2, 8, 12, 6)
    y = block(x, shift_mask(8, 12, 4, x.device))
    expected = torch.stack([naive(block, image) for image in x])
    assert torch.allclose(y, expected, atol=1e-5)


def test_stochastic_depth_is_for_training_alone() -> None:
    torch.manual_seed(0)
    network = super_resolution_factory(SMALL["swinir"] + ",drop_path=0.5", 2)()
    x = torch.rand(16, 3, 8, 8)
    assert not torch.equal(network(x), network(x))
    network.eval()
    assert torch.equal(network(x), network(x))
    plain = super_resolution_factory(SMALL["swinir"] + ",drop_path=0", 2)()
    assert torch.equal(plain(x), plain(x))


def test_vdsr_is_the_identity_without_its_output_layer() -> None:
    network = super_resolution_factory(SMALL["vdsr"], 2)()
    nn.init.zeros_(network.output.weight)
    x = torch.rand(1, 1, 5, 6)
    assert torch.equal(network(x), x)


@pytest.mark.parametrize(
    ("text", "scale", "where", "code", "says"),
    [
        ("esdr", 2, "esdr", "unknown", "'edsr'"),
        ("edsr:bloks=3", 2, "edsr.bloks", "unknown", "'blocks'"),
        ("edsr:blocks", 2, "edsr", "invalid", "key=value"),
        ("edsr:blocks=0", 2, "edsr.blocks", "invalid", "'0'"),
        ("edsr:blocks=x", 2, "edsr.blocks", "invalid", "integer"),
        ("edsr:blocks=1,blocks=2", 2, "edsr.blocks", "conflict", ""),
        ("edsr:residual_scale=inf", 2, "edsr.residual_scale", "invalid", "1"),
        ("edsr:blocks=2", None, "edsr.scale", "missing", "edsr:scale=2"),
        ("edsr:scale=2", 3, "edsr.scale", "conflict", "3"),
        ("edsr:scale=2.5", None, "edsr.scale", "invalid", "integer"),
        ("edsr:scale=5", None, "edsr.scale", "out_of_range", "5"),
        ("edsr", 1, "edsr.scale", "out_of_range", "1"),
        ("swinir", 1, "swinir.scale", "out_of_range", "2"),
        ("swinir:heads=7", 2, "swinir.channels", "conflict", "60"),
        ("swinir:window=7", 2, "swinir.window", "invalid", "7"),
        ("swinir:drop_path=1", 2, "swinir.drop_path", "invalid", "1"),
        ("vdsr:scale=2", None, "vdsr.scale", "unknown", "layers, channels"),
        ("none.py:network", 2, "none.py", "not_found", ""),
    ],
)
def test_names_that_will_not_do(text: str, scale: int | None, where: str, code: Code, says: str) -> None:
    with user_error(where, code, says=says):
        super_resolution_factory(text, scale)


@pytest.mark.parametrize(
    ("text", "same", "image"),
    [
        ("edsr:scale=2,blocks=2,channels=8", SMALL["edsr"], (3, 4, 4)),
        ("swinir:groups=1,depth=2,channels=12,heads=2,window=4,scale=2", SMALL["swinir"], (3, 4, 4)),
        ("vdsr:layers=4,channels=8", SMALL["vdsr"], (1, 4, 4)),
    ],
)
def test_networks_are_found_beside_those_of_timm(text: str, same: str, image: tuple[int, int, int]) -> None:
    torch.manual_seed(0)
    make = network_factory(text, image_shape=image, classes=0)
    network, again = make().eval(), super_resolution_factory(same, 2)().eval()
    again.load_state_dict(network.state_dict())
    x = torch.randn(2, *image)
    y = network(x)
    assert torch.equal(y, again(x))
    assert y.shape == ((2, *image) if on_luma(network) else (2, 3, 8, 8))


def test_all_defaults_need_the_colon_alone() -> None:
    assert params(network_factory("vdsr:", image_shape=(1, 8, 8), classes=0)()) == 664_704


def test_a_network_of_ones_own(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text("from torch import nn\ndef twice():\n    return nn.Upsample(scale_factor=2)\n")
    network = super_resolution_factory(f"{tmp_path}/own.py:twice", 2)()
    assert network(torch.rand(1, 3, 4, 4)).shape == (1, 3, 8, 8)


def test_a_factory_draws_nothing_by_itself() -> None:
    state = torch.get_rng_state()
    make = super_resolution_factory(SMALL["swinir"], 2)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(0)
    first = make().state_dict()
    torch.manual_seed(0)
    again = super_resolution_factory(SMALL["swinir"], 2)().state_dict()
    assert all(torch.equal(first[name], again[name]) for name in first)


@pytest.mark.slow
@pytest.mark.parametrize(("scale", "db"), [(2, 37.55), (3, 33.72), (4, 31.25)])
def test_vdsr_on_set5(shared_data: Path, scale: int, db: float) -> None:
    network = super_resolution_factory("vdsr", scale)()
    load_weights(shared_data / "weights" / "vdsr_x234.npz", network)
    pairs = load_pairs(shared_data / "super_resolution" / "sr_set5.zip", scale).upscaled_luma()
    assert SuperResolution(scale).evaluate(network, WholeImages(pairs)) == pytest.approx(db, abs=0.006)
