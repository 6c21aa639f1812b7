"""`pareto.csv`: the trained networks with what was measured of them, for a spreadsheet or a script."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from pathlib import Path

from espalier.nas.files import write_text
from espalier.recipes.report.networks import Network

COLUMNS = (
    "id",
    "on_front",
    "origin",
    "accuracy_split",
    "accuracy",
    "accuracy_ci95_low",
    "accuracy_ci95_high",
    "images",
    "latency_p50_ms",
    "latency_ci95_low_ms",
    "latency_ci95_high_ms",
    "latency_verdict",
    "params",
    "macs",
    "notation",
)


def write_pareto(path: Path, networks: Iterable[Network]) -> None:
    """Write one row for each network, atomically; a number that is not known is an empty field."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(map(_row, networks))
    write_text(path, text.getvalue())


def _row(network: Network) -> dict[str, object]:
    row: dict[str, object] = {
        "id": network.id,
        "on_front": str(network.on_front).lower(),
        "origin": network.trained.origin,
        "accuracy_split": network.split,
        "params": network.trained.params,
        "macs": network.trained.macs,
        "notation": network.trained.notation,
    }
    if accuracy := network.accuracy:
        row |= {
            "accuracy": accuracy.value,
            "accuracy_ci95_low": accuracy.low,
            "accuracy_ci95_high": accuracy.high,
            "images": accuracy.count,
        }
    if measurement := network.measurement:
        low, high = measurement.latency.ci95
        row |= {
            "latency_p50_ms": measurement.latency.p50,
            "latency_ci95_low_ms": low,
            "latency_ci95_high_ms": high,
            "latency_verdict": measurement.verdict,
        }
    return row
