"""The table of before and after, and the sentence that says whether it was worth it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from espalier.pruning.pruned_model import Plan
from espalier.recipes.inputs.task_score import Score

_CARD = """# A pruned network

{sentence}

| | before | after | |
|---|---:|---:|---:|
{rows}

Target {target}, method {method}.

## PyTorch

```python
from espalier.pruning import load_pruned
network = load_pruned("this folder")
outputs = network((pixels / 255 - mean) / std)  # a float32 tensor (batch, {shape})
```

with, for each channel, mean {mean} and std {std}. It needs `espalier-nas`{needs}. What was removed or set to zero is in
`plan.json`, the weights are in `model.safetensors`.

## ONNX Runtime

```python
import onnxruntime
session = onnxruntime.InferenceSession("model.onnx")
outputs = session.run(["logits"], {{"input": images}})[0]  # images: a float32 NumPy array, normalised likewise
```
"""


def rows(result: Mapping[str, Any]) -> list[tuple[str, str, str, str]]:
    """Name, before, after and their ratio, a row each."""
    before, after, latency = result["before"], result["after"], result["latency"]
    table = [
        _whole("parameters", before["params"], after["params"]),
        ("zeros among the prunable weights", _zeros(before), _zeros(after), ""),
        _whole("MACs", before["macs"], after["macs"]),
        _whole("MACs without those by zero", before["macs_without_zeros"], after["macs_without_zeros"]),
        _whole("weights, bytes", before["weights_bytes"], after["weights_bytes"]),
        _whole("weights gzipped, bytes", before["weights_bytes_gzip"], after["weights_bytes_gzip"]),
        _whole("ONNX, bytes", before["onnx_bytes"], after["onnx_bytes"]),
        _whole("ONNX gzipped, bytes", before["onnx_bytes_gzip"], after["onnx_bytes_gzip"]),
    ]
    old, new = Score(**before["score"]), Score(**after["score"])
    name = f"{new.name}, {new.count} test images [95 % interval]"
    table.append((name, str(old), str(new), ""))
    low, high = latency["ratio_ci95"]
    ratio = f"x {latency['ratio']:.2f} [{low:.2f}, {high:.2f}]"
    table.append(("latency p50, in turns [95 % interval]", _p50(latency["before"]), _p50(latency["after"]), ratio))
    return table


def sentence(result: Mapping[str, Any]) -> str:
    """Whether the pruned network is the faster one, in words; zeros are named where they did not help."""
    latency, after = result["latency"], result["after"]
    environment = latency["after"]["environment"]
    where = f"{environment['provider']} with {environment['threads']} thread(s)"
    ratio, (low, high) = latency["ratio"], latency["ratio_ci95"]
    if latency["faster"]:
        text = f"It takes {ratio:.2f} [{low:.2f}, {high:.2f}] of the dense network's time on {where}."
    elif after["macs"] == result["before"]["macs"] and after["zeros"]:
        text = (
            f"This sparsity does not run faster on this runtime: {where} multiplies by zeros as by other numbers "
            f"(time x {ratio:.2f} [{low:.2f}, {high:.2f}]). Method structured removes what it does not need."
        )
    else:
        text = f"It does not run measurably faster on {where} (time x {ratio:.2f} [{low:.2f}, {high:.2f}])."
    if (two_four := result["sparse_tensor_cores"]) is not None:
        text += f" {_two_four(two_four)}"
    quantity, _, value = result["target"].partition("=")
    if quantity == "latency_ms":
        upper = latency["after"]["latency"]["ci95"][1]
        kept = "is kept" if upper <= float(value) else "is missed"
        text += f" The limit of {float(value):g} ms {kept}: the upper bound of its median is {upper:.3f} ms."
    return text


def result_text(result: Mapping[str, Any], folder: Any) -> str:
    """The table for a terminal."""
    table = [("", "before", "after", "ratio"), *rows(result)]
    widths = [max(len(row[i]) for row in table) for i in range(4)]
    lines = [
        "  ".join(
            [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        )
        for row in table
    ]
    return "\n".join([*(line.rstrip() for line in lines), sentence(result), f"folder: {folder}"])


def preview_text(found: Mapping[str, Any]) -> str:
    """What would be pruned, a line for each layer or group."""
    if "groups" in found:
        lines = [
            f"{group['name']:40} {group['kind']:10} {group['width']:>6} in steps of {group['step']:<3} {_about(group)}"
            for group in found["groups"]
        ]
        free = sum(group["dense_because"] is None for group in found["groups"])
        return "\n".join([*lines, f"{free} of {len(lines)} groups can shrink, target {found['target']}"])
    lines = [
        f"{row['weight']:40} {'x'.join(map(str, row['shape'])):>16} {row['zeros']:>10,} of {row['weights']:>10,} "
        f"({row['zeros'] / row['weights']:.2%})"
        for row in found["layers"]
    ]
    return "\n".join(
        [*lines, f"{found['zeros']:,} of {found['weights']:,} weights would be zero, target {found['target']}"]
    )


def model_card(result: Mapping[str, Any], plan: Plan) -> str:
    """The README of the folder, in Markdown."""
    kind = plan.factory.rpartition(":")[0]
    return _CARD.format(
        sentence=sentence(result),
        rows="\n".join(f"| {' | '.join(row)} |" for row in rows(result)),
        target=result["target"],
        method=result["method"],
        shape=", ".join(map(str, plan.image_shape)),
        mean=", ".join(f"{value:.4g}" for value in plan.mean),
        std=", ".join(f"{value:.4g}" for value in plan.std),
        needs=" and what `network.py` imports" if kind.endswith(".py") else "",
    )


def _about(group: Mapping[str, Any]) -> str:
    if group["dense_because"] is not None:
        return f"stays dense: {group['dense_because']}"
    return ", ".join(group["layers"])


def _two_four(measured: Mapping[str, Any]) -> str:
    if measured["reason"] is not None:
        return f"2:4 on sparse tensor cores: not measured, {measured['reason']}."
    low, high = measured["ci95"]
    count = len(measured["sparse"])
    return (
        f"2:4 on sparse tensor cores ({measured['gpu']}, {count} linear layers, batch {measured['batch']}): "
        f"time x {measured['ratio']:.2f} [{low:.2f}, {high:.2f}]."
    )


def _whole(name: str, before: int, after: int) -> tuple[str, str, str, str]:
    return name, f"{before:,}", f"{after:,}", f"x {after / before:.3f}" if before else ""


def _p50(measurement: Mapping[str, Any]) -> str:
    return f"{measurement['latency']['p50']:.3f} ms {measurement['verdict']}"


def _zeros(facts: Mapping[str, Any]) -> str:
    return f"{facts['zeros']:,} of {facts['prunable']:,} ({facts['zeros'] / facts['prunable']:.2%})"
