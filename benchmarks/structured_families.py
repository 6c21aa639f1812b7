"""Which families of networks can be shrunk to half their multiply-accumulates, and is what comes out right?

    python benchmarks/structured_families.py --output families.jsonl
    python benchmarks/structured_families.py --output families.jsonl --models resnet18 levit_128s

Each model is built by timm and given random weights, norms' statistics and all scales too, so that equality says much,
in a process of its own with a time limit; one line of JSON each; models that are in the output are not run again.
Beside it, what Torch-Pruning does by itself: its base pruner with magnitudes, the same ratio everywhere, the ratio
bisected to half the multiply-accumulates, with the sizes of heads in attentions set by hand as in its examples.
"""

from __future__ import annotations

import argparse
import copy
import json
import subprocess
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from common import print_table
from torch import nn

from espalier.export.onnx import export_onnx
from espalier.nas.cost.count import count
from espalier.pruning.structure import apply_structure
from espalier.pruning.structured import Target, shrink
from espalier.pruning.structured.graph import _side
from espalier.pruning.structured.groups import Member, Units
from espalier.pruning.structured.layers import Side, channels
from espalier.pruning.structured.verify import difference, equal, outputs, randomise

SIZES = {
    "resnet18": 64,
    "resnet50": 64,
    "resnext50_32x4d": 64,
    "regnetx_002": 64,
    "regnety_002": 64,
    "mobilenetv2_100": 64,
    "mobilenetv3_small_100": 64,
    "mobilenetv4_conv_small": 64,
    "efficientnet_b0": 64,
    "efficientnet_lite0": 64,
    "mixnet_s": 64,
    "ghostnet_100": 64,
    "repvgg_a0": 64,
    "mobileone_s0": 64,
    "densenet121": 64,
    "convnext_atto": 64,
    "convnextv2_atto": 64,
    "vit_tiny_patch16_224": 64,
    "deit_tiny_patch16_224": 64,
    "swin_tiny_patch4_window7_224": 224,
    "fastvit_t8": 64,
    "mobilevit_xxs": 64,
    "levit_128s": 224,
    "edgenext_xx_small": 64,
    "efficientformer_l1": 224,
    "poolformer_s12": 64,
    "cait_xxs24_224": 64,
    "xcit_tiny_12_p16_224": 64,
    "hardcorenas_a": 64,
    "dla34": 64,
    "res2net50_26w_4s": 64,
    "seresnet50": 64,
    "tinynet_e": 64,
    "rexnet_100": 64,
    "inception_v3": 96,
    "vgg11_bn": 64,
    "hrnet_w18_small": 64,
    "mnasnet_100": 64,
    "semnasnet_100": 64,
    "cspresnet50": 64,
    "mixer_s32_224": 224,
    "resmlp_12_224": 224,
}
"""Models of timm and the side of their images: the smallest they take, or nearly."""
SHARE = 0.5
SAME = 1e-5
"""Relative difference of equal weights in single precision: they may lie differently in memory."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True, help="one line of JSON for each model")
    parser.add_argument("--models", nargs="+", default=list(SIZES), help="names; the default is all")
    parser.add_argument("--limit-seconds", type=float, default=1200, help="time for one model")
    parser.add_argument("--only", nargs="+", default=["ours", "baseline"], choices=["ours", "baseline"])
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        kind, _, name = options.child.partition(":")
        print(json.dumps(_ours(name) if kind == "ours" else _baseline(name)))
        return
    done = {(row["model"], row["kind"]) for row in _rows(options.output)}
    for name in options.models:
        for kind in options.only:
            if (name, kind) not in done:
                row = {"model": name, "kind": kind, **_in_a_child(f"{kind}:{name}", options)}
                with options.output.open("a") as file:
                    file.write(json.dumps(row) + "\n")
    _print(_rows(options.output))


def _rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []


def _in_a_child(child: str, options: argparse.Namespace) -> dict[str, Any]:
    command = [sys.executable, __file__, "--output", str(options.output), "--child", child]
    started = time.perf_counter()
    try:
        ended = subprocess.run(command, capture_output=True, text=True, timeout=options.limit_seconds, check=False)
    except subprocess.TimeoutExpired:
        return {"error": f"not ready after {options.limit_seconds:g} s"}
    seconds = round(time.perf_counter() - started, 1)
    if ended.returncode:
        lines = ended.stderr.strip().splitlines() or [f"exit code {ended.returncode}"]
        return {"error": lines[-1], "seconds": seconds}
    return {**json.loads(ended.stdout.splitlines()[-1]), "seconds": seconds}


def _ours(name: str) -> dict[str, Any]:
    make, shape = _factory(name)
    dense = make()
    randomise(dense, torch.Generator().manual_seed(1))
    small = shrink(dense, shape, Target("macs", share=SHARE))
    dense_groups = [group for group in small.groups if group.dense_because]
    row: dict[str, Any] = {
        "built": True,
        "share": round(small.share, 4),
        "params_share": round(_params(small.model) / _params(dense), 4),
        "groups": len(small.groups),
        "kinds": dict(Counter(group.kind for group in small.groups if group.kept < group.width)),
        "dense": {group.name: f"{group.kind}: {group.dense_because}" for group in dense_groups},
        "difference": small.difference,
    }
    example = torch.randn(2, *shape)
    with torch.no_grad():
        expected = outputs(small.model(example))
        again = make()
        apply_structure(again, json.loads(json.dumps(small.structure)))
        again.load_state_dict(small.model.state_dict())
        row["rebuilt"] = difference(expected, outputs(again.eval()(example))) < SAME
    return row | _exported(small.model, shape)


def _baseline(name: str) -> dict[str, Any]:
    make, shape = _factory(name)
    dense = make()
    randomise(dense, torch.Generator().manual_seed(1))
    whole = _macs(dense, shape)
    best: tuple[float, nn.Module, float] | None = None
    error, low, high = None, 0.0, 1.0
    for _ in range(6):
        ratio = 0.3 if (low, high) == (0.0, 1.0) else (low + high) / 2
        try:
            pruned, gone = _torch_pruning(dense, shape, ratio)
            share = _macs(pruned, shape) / whole
            with torch.no_grad():
                same = [part.shape for part in outputs(pruned(torch.randn(2, *shape)))]
                if same != [part.shape for part in outputs(dense(torch.randn(2, *shape)))]:
                    raise ValueError("the outputs have another shape")
        except Exception as failure:  # noqa: BLE001 - whatever it raises is the result
            error = f"ratio {ratio:.3f}: {type(failure).__name__}: {' '.join(str(failure).split())[:200]}"
            high = ratio
            continue
        if share <= SHARE:
            best, high = (share, pruned, _difference(dense, pruned, gone, shape)), ratio
        else:
            low = ratio
    if best is None:
        return {"built": False, "error": error or f"no ratio reaches {SHARE}"}
    row = {"built": True, "share": round(best[0], 4), "difference": best[2], "failed_at": error}
    return row | _exported(best[1], shape)


def _torch_pruning(
    dense: nn.Module, shape: tuple[int, int, int], ratio: float
) -> tuple[nn.Module, dict[Side, torch.Tensor]]:
    """The network that Torch-Pruning makes, and which channels of the dense one it has removed from each side."""
    import torch_pruning

    model = copy.deepcopy(dense).requires_grad_(requires_grad=True)
    names = {id(part): name for name, part in [*model.named_modules(), *model.named_parameters()]}
    left: dict[Side, torch.Tensor] = {}
    gone: dict[Side, torch.Tensor] = {}
    classifiers = [
        layer
        for layer in model.modules()
        if 10 in (getattr(layer, "out_features", None), getattr(layer, "out_channels", None))
    ]
    heads = {
        layer.qkv: layer.num_heads
        for layer in model.modules()
        if isinstance(getattr(layer, "qkv", None), nn.Linear) and hasattr(layer, "num_heads")
    }
    pruner = torch_pruning.pruner.BasePruner(
        model,
        torch.randn(1, *shape),
        importance=torch_pruning.importance.GroupMagnitudeImportance(p=2),
        pruning_ratio=ratio,
        ignored_layers=classifiers,
        num_heads=heads,
    )
    for group in pruner.step(interactive=True):
        for item in group:
            part = item.dep.target.module
            if id(part) not in names or not isinstance(part, nn.Module | nn.Parameter):
                continue
            side = _side(pruner.DG, item.dep.handler, item.dep.target)
            width = channels(part, side)
            key = (names[id(part)], side)
            if width is None or not item.idxs or max(item.idxs) >= width:
                continue
            survivors = left.setdefault(key, torch.arange(width))
            missing = gone.setdefault(key, torch.zeros(width, dtype=torch.bool))
            missing[survivors[item.idxs]] = True
            left[key] = survivors[~torch.isin(torch.arange(len(survivors)), torch.tensor(item.idxs))]
        group.prune()
        names |= {id(parameter): name for name, parameter in model.named_parameters()}
    for layer in model.modules():  # by hand, as its examples for transformers do
        if getattr(layer, "qkv", None) in heads:
            layer.head_dim = layer.qkv.out_features // (3 * layer.num_heads)
            layer.attn_dim = layer.num_heads * layer.head_dim
    return model.eval(), gone


def _difference(
    dense: nn.Module, pruned: nn.Module, gone: dict[Side, torch.Tensor], shape: tuple[int, int, int]
) -> float:
    """How far the pruned network is from the dense one in which the same channels are silent."""
    units, removed = [], {}
    for index, (side, missing) in enumerate(gone.items()):
        name = str(index)
        units.append(Units(name, "channels", len(missing), (Member(side, torch.arange(len(missing))),)))
        removed[name] = missing
    return equal(dense, pruned, units, removed, torch.randn(2, *shape))


def _exported(model: nn.Module, shape: tuple[int, int, int]) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        try:
            exported = export_onnx(model, shape, Path(folder) / "model.onnx", exporter="torchscript")
        except Exception as first:  # noqa: BLE001 - the other exporter is asked, and its reason told
            try:
                exported = export_onnx(model, shape, Path(folder) / "model.onnx", exporter="dynamo")
            except Exception as error:  # noqa: BLE001 - as above
                return {"onnx": False, "onnx_error": f"{first}; {error}"[:300]}
    return {"onnx": True, "exporter": exported.exporter}


def _factory(name: str) -> tuple[Callable[[], nn.Module], tuple[int, int, int]]:
    import timm

    size = SIZES.get(name, 64)

    def make() -> nn.Module:
        torch.manual_seed(0)
        try:
            model = timm.create_model(name, num_classes=10, img_size=size)
        except TypeError:  # only models of patches are told the size of the images
            model = timm.create_model(name, num_classes=10)
        return model.eval()  # type: ignore[no-any-return]

    return make, (3, size, size)


def _macs(model: nn.Module, shape: tuple[int, int, int]) -> int:
    return count(copy.deepcopy(model).requires_grad_(requires_grad=False), shape).macs


def _params(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def _print(rows: list[dict[str, Any]]) -> None:
    by_model: dict[str, dict[str, dict[str, Any]]] = {}
    for row in rows:
        by_model.setdefault(row["model"], {})[row["kind"]] = row
    table = []
    for name, kinds in by_model.items():
        ours, baseline = kinds.get("ours", {}), kinds.get("baseline", {})
        if "difference" in ours:
            reasons = Counter(reason for reason in ours["dense"].values() if "outputs" not in reason)
            mine = [f"{ours['share']:.3f}", f"{ours['difference']:.0e}", _yes(ours["rebuilt"]), _yes(ours["onnx"])]
            mine.append(f"{sum(reasons.values())} of {ours['groups']}")
        else:
            mine = [ours.get("error", "")[:60], "", "", "", ""]
        theirs = ["not built", "", ""]
        if baseline.get("built"):
            theirs = [f"{baseline['share']:.3f}", f"{baseline['difference']:.0e}", _yes(baseline["onnx"])]
        table.append([name, *mine, *theirs])
    header = [
        "model",
        "MACs",
        "difference",
        "rebuilt",
        "ONNX",
        "dense groups",
        "Torch-Pruning: MACs",
        "difference",
        "ONNX",
    ]
    print_table(f"Shrunk to {SHARE} of the multiply-accumulates", header, table)


def _yes(value: bool) -> str:
    return "yes" if value else "NO"


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    main()
