"""A run folder with made-up but realistic content, for tests of what reads one."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from espalier.nas.architecture import Architecture
from espalier.nas.files import write_json, write_text
from espalier.nas.measurement import Latency, Measurement, Verdict
from espalier.nas.run import RunFolder

ALL_STAGES = ("data", "supernet", "rank", "select", "search", "train", "export", "profile", "test")
OPERATIONS = ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")
EDGES = (("input", "1"), ("input", "2"), ("1", "2"), ("input", "output"), ("1", "output"), ("2", "output"))
NETWORKS = 8
SELECTION_IMAGES = 359
TEST_IMAGES = 360
VERDICTS: tuple[Verdict, ...] = ("stable", "stable", "noisy", "stable", "contended", "stable", "drifting", "stable")

RECIPE = """\
name: quickstart
description: NAS-Bench-201 cells for 8x8 digits, accurate and fast on this machine.
seed: 7
data:
  source: digits
  split: {train: 0.5, architecture: 0.1, selection: 0.2, test: 0.2}
space: {name: nasbench201, channels: 8, cells: 1}
supernet: {strategy: darts, epochs: 30}
rank: {table: nasbench201_cifar10.csv.gz, target: c10_test}
select: {methods: [argmax, perturbation]}
search: {trials: 40, objectives: [accuracy, latency_ms], accuracy: inherited, constraints: [params <= 600000]}
train: {front: 6, random: 2}
profile: {sessions: 5}
"""


def build_run(folder: Path, *, stages: Collection[str] = ALL_STAGES, recipe: str = RECIPE) -> Path:
    """Write a run of `NETWORKS` networks whose `stages` have finished; the same content each time."""
    write_text(folder / "recipe.yaml", recipe)
    versions = {"python": "3.12.4", "torch": "2.15.0", "onnxruntime": "1.32.0", "espalier-nas": "0.1.0"}
    write_json(
        folder / "environment.json",
        {**versions, "machine": {"cpu": "Xeon Platinum 8480+", "cores": 2, "gpu": None}},
    )
    outputs = make_outputs()
    for stage in stages:
        RunFolder(folder).finish(stage, "0" * 12, outputs[stage])
    if "export" in stages:
        for id in outputs["export"]:
            for name in ("model.onnx", "model.safetensors", "model.py", "README.md"):
                write_text(folder / "architectures" / id / name, "content")
    return folder


def make_outputs() -> dict[str, Any]:
    """The outputs of every stage, by name; plain JSON that a test may change before it writes them."""
    random = np.random.default_rng(0)
    candidates = [_candidate(trial, random) for trial in range(44)]
    complete = [c for c in candidates if c["status"] == "complete"]
    front = [c for c in complete if not any(_dominates(other, c) for other in complete)]
    others = [c for c in complete if c not in front]
    chosen = sorted(front, key=lambda c: float(c["values"]["latency_ms"]))[:6]
    chosen += others[: NETWORKS - len(chosen)]
    networks = [_network(i, candidate, random) for i, candidate in enumerate(chosen)]
    ids = [n["id"] for n in networks]
    return {
        "data": {
            "name": "digits",
            "classes": [str(digit) for digit in range(10)],
            "image_shape": [1, 8, 8],
            "splits": {"train": 899, "architecture": 179, "selection": SELECTION_IMAGES, "test": TEST_IMAGES},
        },
        "supernet": {"strategy": "darts", "parts": [_supernet("root", random)]},
        "rank": _rank(random),
        "select": _select(complete),
        "search": {
            "objectives": [
                {"name": "accuracy", "direction": "maximize"},
                {"name": "latency_ms", "direction": "minimize"},
            ],
            "constraints": ["params <= 600000"],
            "counts": {"complete": 40, "infeasible": 3, "failed": 1, "duplicates": 5},
            "candidates": candidates,
            "stopped": "",
            "front": [c["id"] for c in front],
        },
        "train": {"networks": networks},
        "export": {
            id: {
                "exporter": "torchscript" if i == 3 else "dynamo",
                "fallback_reason": "the dynamo exporter failed: unsupported operator aten::x" if i == 3 else None,
                "opset": 20,
                "size_bytes": 98_304 + 4_096 * i,
                "max_abs_error": 1.3e-6,
                "tolerance": 1e-3,
            }
            for i, id in enumerate(ids)
        },
        "profile": {id: _measurement(0.14 + 0.05 * i, VERDICTS[i], random) for i, id in enumerate(ids)},
        "test": {
            "images": TEST_IMAGES,
            "accuracy": {n["id"]: round(n["accuracy"] - 0.004, 4) for n in networks},
            "correlations": [
                _correlation("gradsign", NETWORKS, 0.43, 0.40),
                _correlation("inherited", NETWORKS, 0.64, 0.35),
                {
                    **_correlation("constant", NETWORKS, 0.0, 0.1),
                    **dict.fromkeys(("kendall", "kendall_ci95", "spearman", "spearman_ci95")),
                    "not_finite": NETWORKS,
                },
            ],
        },
    }


def few_shot() -> dict[str, Any]:
    """The outputs of a supernet stage that divides the space in two."""
    random = np.random.default_rng(1)
    return {
        "strategy": "proxyless",
        "parts": [_supernet(name, random) for name in ("root.0", "root.1")],
        "splits": {
            "root": {
                "choice": "edge_1_0",
                "groups": [[0, 2], [1, 3, 4]],
                "options": list(OPERATIONS),
                "similarity": 0.8125,
                "agreement": 0.96,
                "repeats": 12,
                "sample_passes": 46_080,
            }
        },
    }


def _supernet(name: str, random: np.random.Generator) -> dict[str, Any]:
    rows = [
        {
            "epoch": e,
            "loss": 2.3 * 0.9**e + 0.2,
            "lr": 0.1,
            "seconds": 0.4,
            "entropy": 1 - 0.01 * e,
            "eigenvalue": 0.05 * 1.06**e + float(random.normal(0, 0.004)),
            "expected_ms": 1.4 - 0.01 * e,
        }
        for e in range(1, 31)
    ]
    diagnosis = {
        "learns": True,
        "choices": 6,
        "parameter_free": 6,
        "by_chance": 3.6,
        "entropy": 0.7,
        "eigenvalue": rows[-1]["eigenvalue"],
        "gap": 0.31,
        "training_accuracy": 0.97,
        "validation_accuracy": 0.9,
        "verdict": "Collapsing: 6 of 6 choices prefer an operation without parameters.",
    }
    return {"name": name, "region": {}, "rows": rows, "diagnosis": diagnosis}


def _select(candidates: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    found = [
        {
            "method": method,
            "part": "root",
            "id": candidate["id"],
            "notation": candidate["notation"],
            "architecture": candidate["architecture"],
            "accuracy": accuracy,
        }
        for method, candidate, accuracy in zip(("argmax", "perturbation"), candidates, (0.71, 0.78), strict=False)
    ]

    def comparison(candidates: Sequence[str], decided: str, decided_by: str, margin: float, error: float) -> Any:
        numbers = {"accuracies": [0.8] * len(candidates), "losses": [0.6] * len(candidates)}
        outcome = {"decided": decided, "decided_by": decided_by, "margin": margin, "standard_error": error}
        return {"candidates": list(candidates), "images": SELECTION_IMAGES, **numbers, **outcome}

    edges = ["edge_3_0", "edge_3_1", "edge_3_2"]
    made = [
        ("edge_1_0", "nor_conv_3x3", [comparison(OPERATIONS, "nor_conv_3x3", "accuracy", 0.0613, 0.0128)]),
        ("edge_2_0", "skip_connect", [comparison(OPERATIONS, "skip_connect", "loss", 0.0042, 0.0031)]),
        ("node_3", "(0, 2)", [comparison(edges, "edge_3_1", "loss", 0.0871, 0.0102)]),
    ]
    decisions = [
        {"part": "root", "method": "perturbation", "choice": choice, "option": option, "comparisons": comparisons}
        for choice, option, comparisons in made
    ]
    return {"chosen": found, "candidates": found, "decisions": decisions}


def _candidate(trial: int, random: np.random.Generator) -> dict[str, Any]:
    chosen = [OPERATIONS[i] for i in random.integers(len(OPERATIONS), size=len(EDGES))]
    if trial == 0:
        chosen = ["nor_conv_3x3", "none", "skip_connect", "avg_pool_3x3", "nor_conv_1x1", "nor_conv_3x3"]
    a, b, c, d, e, f = chosen
    convolutions = sum("conv" in operation for operation in chosen)
    params = 12_000 + 30_000 * convolutions
    architecture = {f"edge_{a}_{b}": option for (a, b), option in zip(EDGES, chosen, strict=True)}
    candidate = {
        "trial": trial,
        "id": Architecture(architecture).id,
        "architecture": architecture,
        "notation": f"|{a}~0|+|{b}~0|{c}~1|+|{d}~0|{e}~1|{f}~2|",
        "status": "complete",
        "values": {
            "params": params,
            "accuracy": round(0.55 + 0.05 * convolutions + random.normal(0, 0.03), 4),
            "latency_ms": round(0.12 + 0.06 * convolutions + random.normal(0, 0.01), 4),
        },
        "reason": "",
        "seconds": 0.8,
    }
    if trial in (9, 20, 31):
        candidate |= {"status": "infeasible", "values": {"params": 612_345.0 + trial}}
        candidate["reason"] = f"params = {612_345 + trial:g}, not params <= 600000"
    elif trial == 40:
        candidate |= {"status": "failed", "values": {"params": params}, "reason": "inherited is nan"}
    return candidate


def _dominates(a: Mapping[str, Any], b: Mapping[str, Any]) -> bool:
    x, y = a["values"], b["values"]
    return bool(x["accuracy"] >= y["accuracy"] and x["latency_ms"] < y["latency_ms"])


def _network(i: int, candidate: Mapping[str, Any], random: np.random.Generator) -> dict[str, Any]:
    accuracy = round((0.84, 0.90, 0.925, 0.95, 0.955, 0.972, 0.91, 0.88)[i] * SELECTION_IMAGES) / SELECTION_IMAGES
    operations = [part.split("~")[0] for part in candidate["notation"].split("|") if "~" in part]
    params = int(candidate["values"]["params"])
    rows = [
        {
            "epoch": e,
            "loss": 2.3 * (0.90 - 0.01 * i) ** e + 0.05,
            "accuracy": accuracy * (1 - 0.85**e) if e % 2 == 0 else None,
            "lr": 0.1,
            "seconds": 0.3,
        }
        for e in range(1, 41)
    ]
    return {
        "id": candidate["id"],
        "architecture": candidate["architecture"],
        "notation": candidate["notation"],
        "origin": "front" if i < 6 else "random",
        "diagram": [[a, b, operation] for (a, b), operation in zip(EDGES, operations, strict=True)],
        "params": params,
        "macs": params * 64,
        "accuracy": accuracy,
        "images": SELECTION_IMAGES,
        "rows": rows,
        "estimates": {
            "gradsign": {
                "value": float(params * random.uniform(0.8, 1.2)),
                "unit": "",
                "status": "ok",
                "higher_is_better": True,
            },
            "inherited": {
                "value": candidate["values"]["accuracy"],
                "unit": "share",
                "status": "ok",
                "higher_is_better": True,
            },
            "constant": {"value": None, "unit": "", "status": "nan", "higher_is_better": True},
        },
    }


def _measurement(median_ms: float, verdict: Verdict, random: np.random.Generator) -> dict[str, Any]:
    values = median_ms * (1 + random.gamma(2.0, 0.015 if verdict == "stable" else 0.08, size=400))
    p50, p90, p95 = (float(p) for p in np.percentile(values, (50, 90, 95)))
    width = 0.01 if verdict == "stable" else 0.08
    latency = Latency(
        unit="ms",
        count=len(values),
        mean=float(values.mean()),
        stdev=float(values.std(ddof=1)),
        p50=p50,
        p90=p90,
        p95=p95,
        p99=None,
        ci95=(p50 * (1 - width), p50 * (1 + 1.5 * width)),
        values=tuple(round(float(v), 5) for v in values),
    )
    device = {
        "id": "c0ffee123456",
        "cpu_model": "Xeon Platinum 8480+",
        "provider": "CPUExecutionProvider",
        "threads": 1,
    }
    used = {"batch": 1, "sessions": 5, "steal_share": float(random.uniform(0, 0.01)), "runs_per_session": 80}
    return Measurement(latency, verdict, {**device, **used}).to_dict()


def _rank(random: np.random.Generator) -> dict[str, Any]:
    points = []
    for i in range(200):
        target = float(94 - random.gamma(2.0, 2.0))
        values = {"inherited": 0.4 + (target - 90) / 40 + random.normal(0, 0.03), "params": random.uniform(1e5, 1.5e6)}
        points.append({"id": f"{i:012x}", "target": target, "values": values})
    correlations = [_correlation("inherited", 200, 0.61, 0.05), _correlation("params", 200, -0.04, 0.09)]
    return {
        "table": "nasbench201_cifar10.csv.gz",
        "target": "c10_test",
        "samples": 200,
        "correlations": correlations,
        "points": points,
    }


def _correlation(name: str, n: int, kendall: float, half_width: float) -> dict[str, Any]:
    spearman = min(0.99, kendall * 1.25)
    return {
        "name": name,
        "higher_is_better": True,
        "n": n,
        "kendall": kendall,
        "kendall_ci95": [kendall - half_width, min(1.0, kendall + half_width)],
        "spearman": spearman,
        "spearman_ci95": [spearman - half_width, min(1.0, spearman + half_width)],
        "not_finite": 0,
    }
