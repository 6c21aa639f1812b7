"""What the command line says at the end, as JSON and as text."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from espalier.nas.files import read_json
from espalier.nas.progress import silent
from espalier.nas.run import RunFolder
from espalier.recipes.config.schema import Recipe
from espalier.recipes.engine.budget import over
from espalier.recipes.engine.cache_keys import plan
from espalier.recipes.engine.preflight import check
from espalier.recipes.engine.runner import new_context


def dry_run_summary(recipe: Recipe) -> dict[str, Any]:
    """The stages of a recipe with their cache keys, after every check that needs no training.

    Raises:
        UserError: whatever would stop the run.
    """
    context = new_context(recipe, RunFolder(Path()), silent)
    stages = plan(context)
    check(context)
    return {stage.name: context.keys[stage.name] for stage in stages}


def run_summary(folder: Path) -> dict[str, Any]:
    """What a finished run has found: counts, correlations, and each trained network with its numbers and files."""
    outputs = {path.stem: read_json(path)["outputs"] for path in (folder / "stages").glob("*.json")}
    budget = (yaml.safe_load((folder / "recipe.yaml").read_text()) or {}).get("budget") or {}
    limit = budget.get("latency_ms")
    trained = outputs.get("train", {"networks": []})["networks"]
    missed = [network["id"] for network in trained if over(outputs["profile"][network["id"]], limit)]
    networks = [
        {
            "id": network["id"],
            "notation": network["notation"],
            "origin": network["origin"],
            "params": network["params"],
            "macs": network["macs"],
            "selection_accuracy": network["accuracy"],
            "test_accuracy": outputs["test"]["accuracy"][network["id"]],
            "latency_ms": outputs["profile"][network["id"]]["latency"]["p50"],
            "latency_ms_ci95": outputs["profile"][network["id"]]["latency"]["ci95"],
            "verdict": outputs["profile"][network["id"]]["verdict"],
            "onnx": str(folder / "architectures" / network["id"] / "model.onnx"),
        }
        for network in trained
        if network["id"] not in missed
    ]
    return {
        "run": str(folder),
        "report": str(folder / "report.html"),
        "selected": outputs.get("select", {"chosen": []})["chosen"],
        "search": outputs["search"]["counts"] if "search" in outputs else None,
        "stopped": outputs["search"]["stopped"] if "search" in outputs else "",
        "front": outputs["search"]["front"] if "search" in outputs else [],
        "ladder": outputs["search"].get("ladder") if "search" in outputs else None,
        "over_budget": missed,
        "test_images": outputs["test"]["images"] if "test" in outputs else 0,
        "networks": sorted(networks, key=lambda network: network["latency_ms"]),
        "rank": outputs["rank"]["correlations"] if "rank" in outputs else [],
    }


def run_text(summary: dict[str, Any]) -> str:
    """The same for a person: what was searched, a line for each trained network, where the report is."""
    lines = [f"select: {one['method']} chose {one['id']}, {one['notation']}" for one in summary["selected"]]
    for one in summary["selected"]:
        if first := one.get("replaces"):
            lines.append(f"budget: {one['id']} is the nearest to {first['id']}, which has {first['why']}")
    if summary["search"] is not None:
        counts = ", ".join(f"{count} {what}" for what, count in summary["search"].items() if count)
        lines.append(f"search: {counts}; {len(summary['front'])} on the front")
    if ladder := summary["ladder"]:
        text = f"{ladder['measurement']} candidates measured, {ladder['estimate']} decided by an estimate"
        lines.append(f"budget: latency_ms <= {ladder['limit_ms']:g}; {text}")
    if summary["over_budget"]:
        lines.append(f"budget: trained and left out, over it when measured: {', '.join(summary['over_budget'])}")
    if summary["stopped"]:
        lines.append(f"search: ended early, {summary['stopped']}")
    for row in summary["rank"]:
        kendall = "undefined" if row["kendall"] is None else f"{row['kendall']:.3f} {_interval(row['kendall_ci95'], 3)}"
        lines.append(f"rank: {row['name']:10} Kendall tau {kendall}, n = {row['n']}")
    if not summary["networks"]:
        return "\n".join([*lines, f"report: {summary['report']}"])
    lines.append(f"{'network':14}{'found as':14}{'params':>10}{'MACs':>13}{'test':>8}  latency p50 (95 % interval)")
    for n in summary["networks"]:
        latency = f"{n['latency_ms']:.3f} ms {_interval(n['latency_ms_ci95'], 3)} {n['verdict']}"
        lines.append(
            f"{n['id']:14}{n['origin']:14}{n['params']:>10,}{n['macs']:>13,}{n['test_accuracy']:>8.1%}  {latency}"
        )
    lines.append(f"test: {summary['test_images']} images that nothing above has chosen by")
    lines.append(f"report: {summary['report']}")
    return "\n".join(lines)


def _interval(bounds: tuple[float, float] | list[float], digits: int) -> str:
    low, high = bounds
    return f"[{low:.{digits}g}, {high:.{digits}g}]"
