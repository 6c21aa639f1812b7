"""The table of the forms of a network, and the sentences that say what is kept and why the others are not."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from espalier.export.quantize.source import Source

_CARD = """# A network in {kept}

{sentence}

| {header} |
|---|{rules}
{rows}

{reasons}

Accuracy and drop are of {test_images} test images, with 95 % intervals; the drop (score interval of paired proportions)
is that from fp32 on the same images. The time is that of fp32 in the same rounds, as a ratio with its 95 % interval.

## ONNX Runtime

```python
import onnxruntime
session = onnxruntime.InferenceSession("model.onnx")
outputs = session.run(["{output}"], {{"{input}": images}})[0]
```

where `images` are float32 `({batch}, {shape})`, `(pixels / 255 - mean) / std` with, for each channel, mean {mean} and
std {std}. Inputs and outputs are float32 whatever is inside.
"""

HEADER = ("form", "bytes", "accuracy", "drop", "outputs differ by", "time", "")


def rows(result: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """A row for each form, in the columns of `HEADER`."""
    base = result["forms"][0]["size_bytes"]
    return [
        (
            form["name"],
            "" if form["size_bytes"] is None else f"{form['size_bytes']:,} (x {form['size_bytes'] / base:.2f})",
            _interval(form["accuracy"]),
            _interval(form["drop"]),
            "" if form["error"] is None else f"{form['error']:.1%} of their spread",
            _time(form["latency"]),
            "kept" if form["name"] == result["kept"] else "",
        )
        for form in result["forms"]
    ]


def sentence(result: Mapping[str, Any]) -> str:
    """What is kept, with its numbers."""
    kept = next(form for form in result["forms"] if form["name"] == result["kept"])
    where = f"{result['environment'].get('provider')} ({result['int8']['reason']})"
    if kept["latency"] is None:
        return f"It stays in fp32 on {where}: no other form is faster and within a drop of {result['max_drop']:.2%}."
    return (
        f"{kept['name']} is kept: it takes {_time(kept['latency']).partition(' of')[0].removeprefix('x ')} of fp32's "
        f"time on {where}, and its accuracy drops by {_interval(kept['drop'])}, within {result['max_drop']:.2%}."
    )


def reasons(result: Mapping[str, Any]) -> list[str]:
    """Why each of the other forms is not kept."""
    lines = []
    for form in result["forms"][1:]:
        if form["refused"] is not None:
            lines.append(f"{form['name']}: {form['refused']}.")
        elif form["name"] != result["kept"]:
            lines.append(f"{form['name']}: would do; {result['kept']} is faster, or as fast and more accurate.")
    return lines


def result_text(result: Mapping[str, Any], folder: Any) -> str:
    """The table for a terminal."""
    table = [HEADER, *rows(result)]
    widths = [max(len(row[i]) for row in table) for i in range(len(HEADER))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in table]
    return "\n".join([*lines, *reasons(result), sentence(result), f"folder: {folder}"])


def model_card(result: Mapping[str, Any], source: Source, mean: tuple[float, ...], std: tuple[float, ...]) -> str:
    """The README of the folder, in Markdown."""
    return _CARD.format(
        kept=result["kept"],
        sentence=sentence(result),
        header=" | ".join(HEADER),
        rules="---|" * (len(HEADER) - 1),
        rows="\n".join(f"| {' | '.join(row)} |" for row in rows(result)),
        reasons="\n".join(f"- {line}" for line in reasons(result)),
        test_images=f"{result['test_images']:,}",
        input=source.input,
        output=source.output,
        batch=source.batch or "batch",
        shape=", ".join(map(str, source.image_shape)),
        mean=", ".join(f"{value:.4g}" for value in mean),
        std=", ".join(f"{value:.4g}" for value in std),
    )


def _interval(share: Mapping[str, Any] | None) -> str:
    return "" if share is None else f"{share['value']:.2%} [{share['low']:.2%}, {share['high']:.2%}]"


def _time(latency: Mapping[str, Any] | None) -> str:
    if latency is None:
        return ""
    low, high = latency["ci95"]
    measurement = latency["measurement"]
    p50 = f"{measurement['latency']['p50']:.3f} ms {measurement['verdict']}"
    return f"x {latency['ratio']:.2f} [{low:.2f}, {high:.2f}] of fp32, {p50}"
