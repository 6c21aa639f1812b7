"""The table of before and after, and the sentence that says whether pruning made the network faster."""

from __future__ import annotations

from espalier.nas.measurement import Measurement
from espalier.nas.network_inputs import parse_input
from espalier.pruning.pruned_model import Plan
from espalier.pruning.semi_structured import SemiStructured
from espalier.recipes.commands.prune.result import NetworkFacts, PruneResult

MAX_LISTED = 8
"""How many layers a sentence names."""
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
outputs = network({arguments})
```

{where}It needs `espalier-nas`{needs}.
`plan.json` lists what was removed or set to zero; `model.safetensors` holds the weights.

## ONNX Runtime

```python
import onnxruntime
session = onnxruntime.InferenceSession("model.onnx")
outputs = session.run(None, {{{feed}}})  # a list of its outputs; NumPy arrays as above
```
"""


def rows(result: PruneResult) -> list[tuple[str, str, str, str]]:
    """Name, before, after and their ratio, a row each."""
    before, after, latency = result.before, result.after, result.latency
    table = [
        _whole("parameters", before.params, after.params),
        ("zeros among the prunable weights", _zeros(before, before.prunable), _zeros(after, after.prunable), ""),
        ("zeros among all parameters", _zeros(before, before.params), _zeros(after, after.params), ""),
        _whole("MACs", before.macs, after.macs),
        _whole("MACs without zero weights", before.macs_without_zeros, after.macs_without_zeros),
        _whole("weights, bytes", before.weights_bytes, after.weights_bytes),
        _whole("weights gzipped, bytes", before.weights_bytes_gzip, after.weights_bytes_gzip),
        _whole("ONNX, bytes", before.onnx_bytes, after.onnx_bytes),
        _whole("ONNX gzipped, bytes", before.onnx_bytes_gzip, after.onnx_bytes_gzip),
    ]
    if after.score is not None:
        name = f"{after.score.name}, {after.score.count} test images [95 % interval]"
        table.append((name, str(before.score), str(after.score), ""))
    low, high = latency.ratio_ci95
    ratio = f"x {latency.ratio:.2f} [{low:.2f}, {high:.2f}]"
    table.append(("latency p50, in turns [95 % interval]", _p50(latency.before), _p50(latency.after), ratio))
    return table


def sentence(result: PruneResult) -> str:
    """Whether the pruned network is faster; if zeros did not help, it says so."""
    latency, after = result.latency, result.after
    environment = latency.after.environment
    where = f"{environment['provider']} with {environment['threads']} thread(s)"
    ratio, (low, high) = latency.ratio, latency.ratio_ci95
    if latency.faster:
        text = f"It takes {ratio:.2f} [{low:.2f}, {high:.2f}] of the dense network's time on {where}."
    elif after.macs == result.before.macs and after.zeros:
        text = (
            f"This sparsity does not run faster on this runtime: {where} multiplies by zeros like by any other number "
            f"(time x {ratio:.2f} [{low:.2f}, {high:.2f}]). The method structured removes channels instead."
        )
    else:
        text = f"It does not run measurably faster on {where} (time x {ratio:.2f} [{low:.2f}, {high:.2f}])."
    if result.sparse_tensor_cores is not None:
        text += f" {_two_four(result.sparse_tensor_cores)}"
    if after.left_out and after.zeros:
        text += f" {_left_out(after)}"
    quantity, _, value = result.target.partition("=")
    if quantity == "latency_ms":
        upper = latency.after.latency.ci95[1]
        met = "is met" if upper <= float(value) else "is missed"
        text += f" The limit of {float(value):g} ms {met}: the upper bound of its median is {upper:.3f} ms."
    return text


def result_text(result: PruneResult) -> str:
    """The table for a terminal."""
    table = [("", "before", "after", "ratio"), *rows(result)]
    widths = [max(len(row[i]) for row in table) for i in range(4)]
    lines = [
        "  ".join(
            [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        )
        for row in table
    ]
    return "\n".join([*(line.rstrip() for line in lines), sentence(result), f"folder: {result.folder}"])


def model_card(result: PruneResult, plan: Plan) -> str:
    """The README of the folder, in Markdown."""
    kind = plan.factory.rpartition(":")[0]
    return _CARD.format(
        sentence=sentence(result),
        rows="\n".join(f"| {' | '.join(row)} |" for row in rows(result)),
        target=result.target,
        method=result.method,
        **_inputs(plan),
        needs=" and what `network.py` imports" if kind.endswith(".py") else "",
    )


def _inputs(plan: Plan) -> dict[str, str]:
    """What the card says of the network's inputs."""
    described = plan.settings.get("inputs")
    if described is not None:
        inputs = [parse_input(text) for text in described]
        return {
            "arguments": ", ".join(one.name for one in inputs),
            "where": f"with tensors {', '.join(map(str, inputs))} (name:shape:type, without the batch). ",
            "feed": ", ".join(f'"{one.name}": {one.name}' for one in inputs),
        }
    mean, std = (", ".join(f"{value:.4g}" for value in values) for values in (plan.mean, plan.std))
    shape = ", ".join(map(str, plan.image_shape))
    return {
        "arguments": "images",
        "where": (
            f"with `images = (pixels / 255 - mean) / std`, a float32 tensor (batch, {shape}), and for each channel "
            f"mean\n{mean} and std {std}. "
        ),
        "feed": '"input": images',
    }


def _two_four(measured: SemiStructured) -> str:
    if measured.ratio is None or measured.ci95 is None:
        return f"2:4 on sparse tensor cores: not measured, {measured.reason}."
    low, high = measured.ci95
    return (
        f"2:4 on sparse tensor cores ({measured.gpu}, {len(measured.sparse)} linear layers, batch {measured.batch}): "
        f"time x {measured.ratio:.2f} [{low:.2f}, {high:.2f}]."
    )


def _whole(name: str, before: int | None, after: int | None) -> tuple[str, str, str, str]:
    if before is None or after is None:
        return name, "-", "-", ""
    return name, f"{before:,}", f"{after:,}", f"x {after / before:.3f}" if before else ""


def _p50(measurement: Measurement) -> str:
    return f"{measurement.latency.p50:.3f} ms {measurement.verdict}"


def _zeros(facts: NetworkFacts, of: int) -> str:
    return f"{facts.zeros:,} of {of:,} ({facts.zeros / of:.2%})"


def _left_out(facts: NetworkFacts) -> str:
    """Which layers were never candidates for zeros, and how to make them candidates."""
    listed = [f"{name} ({kind})" for name, kind in list(facts.left_out.items())[:MAX_LISTED]]
    more = len(facts.left_out) - len(listed)
    text = f"No zeros were possible in {', '.join(listed)}{f' and {more} more' if more else ''}."
    recurrent = [name for name, kind in facts.left_out.items() if kind in ("LSTM", "GRU", "RNN", "Embedding")]
    return text + (f" --include {recurrent[0]} makes {recurrent[0]} prunable." if recurrent else "")
