"""What `nas profile` found, in words and tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

ROWS = 12
"""Of the longest tables; the file of `-o` has all of them."""


def profile_text(result: Mapping[str, Any]) -> str:
    """One file: its latency, and what else was looked at."""
    lines = latency_lines(result)
    if "end_to_end" in result:
        lines += ["", *end_to_end(result["end_to_end"])]
    if "concurrency" in result:
        lines += ["", *concurrency(result["concurrency"])]
    if "operators" in result:
        lines += ["", *_operators(result["operators"])]
    return "\n".join(lines)


def comparison_text(result: Mapping[str, Any]) -> str:
    """Several files: the latency of each, and its ratio to the first."""
    lines = [line for one in result["files"] for line in (*latency_lines(one), "")]
    lines.append(f"timed in turns, against {result['files'][0]['file']}:")
    for other in result["comparison"]:
        said = {None: "no difference is known", True: "faster", False: "slower"}[other["faster"]]
        lines.append(f"  {other['file']}: {other['ratio']:.4g} times as long {interval(other['ci95'])}, {said}")
    return "\n".join(lines)


def latency_lines(result: Mapping[str, Any]) -> list[str]:
    """The latency of one file, its cold start and where it was timed."""
    latency, environment = result["latency"], result["environment"]
    load, first_run = _range(result["load"]["latency"]), _range(result["first_run"]["latency"])
    own = ", each in a process of its own" if environment["fresh_processes"] else ""
    energy = result["energy"]
    return [
        f"{result['file']}: {result['verdict']}",
        f"  p50 {latency['p50']:.4g} ms, 95 % interval {interval(latency['ci95'])}",
        f"  {percentiles(latency)}",
        f"  mean {latency['mean']:.4g} ms, standard deviation {latency['stdev']:.4g} ms, {latency['count']:,} runs "
        f"in {environment['sessions']} sessions{own}",
        f"  cold start: {load} to load, {first_run} first run",
        f"  {result['throughput']['value']:.4g} images/s, one run after the other",
        "  energy: not counted on this device" if energy is None else _energy(energy),
        f"  {environment['provider']}, {_plural(environment['threads'], 'thread')}, batch {environment['batch']}",
        f"  environment {environment['id']}",
    ]


def percentiles(latency: Mapping[str, Any]) -> str:
    """Those that are known, and why the others are not."""
    known = [f"{name} {latency[name]:.4g} ms" for name in ("p90", "p95", "p99") if latency[name] is not None]
    missing = [name for name in ("p90", "p95", "p99") if latency[name] is None]
    return ", ".join(known + [f"{', '.join(missing)} not known: too few runs"] * bool(missing))


def interval(bounds: Sequence[float]) -> str:
    """An interval, to four digits."""
    low, high = bounds
    return f"[{low:.4g}, {high:.4g}]"


def _energy(energy: Mapping[str, Any]) -> str:
    return f"  energy: {energy['value']:.4g} J a run, of everything that ran meanwhile ({energy['of']})"


def _range(latency: Mapping[str, Any]) -> str:
    low, high = min(latency["values"]), max(latency["values"])
    return f"{latency['p50']:.4g} ms ({low:.4g} to {high:.4g})"


def _plural(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


def percent(one: Mapping[str, Any]) -> str:
    """A share with its interval."""
    low, high = one["ci95"]
    return f"{one['share']:7.1%} [{low:.1%}, {high:.1%}]"


def end_to_end(found: Mapping[str, Any]) -> list[str]:
    """Whole requests, and their steps."""
    latency = found["latency"]
    images = _plural(found["images"], "image")
    lines = [
        f"whole requests ({images}, from their bytes in memory to the outputs): {found['verdict']}",
        f"  p50 {latency['p50']:.4g} ms, 95 % interval {interval(latency['ci95'])}; {percentiles(latency)}",
        f"  {'step':12}{'p50 ms':>9}  share of the time, 95 % interval",
    ]
    return lines + [f"  {s['name']:12}{s['latency']['p50']:>9.4g}  {percent(s)}" for s in found["steps"]]


def concurrency(loads: Sequence[Mapping[str, Any]]) -> list[str]:
    """A line for each batch and number of callers."""
    lines = [
        "throughput: callers at once of one session, each asking again when it has its answer",
        f"  {'batch':>5}{'callers':>8}{'requests/s':>11}{'images/s':>10}  {'95 % interval':20}"
        f"{'p50 ms':>8}{'p90':>8}{'p95':>8}{'p99':>8}",
    ]
    for load in loads:
        latency = load["latency"]
        told = [latency[name] for name in ("p50", "p90", "p95", "p99")]
        lines.append(
            f"  {load['batch']:>5}{load['callers']:>8}{load['requests_per_s']:>11.4g}{load['images_per_s']:>10.4g}  "
            f"{interval(load['ci95']):20}{''.join(f'{_or_dash(ms):>8}' for ms in told)}  {load['verdict']}"
        )
    if any(load["latency"]["p99"] is None for load in loads):
        lines.append("  - too few runs for this percentile")
    return lines


def _or_dash(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"


def _operators(found: Mapping[str, Any]) -> list[str]:
    scale = found["measured_ms"] / found["profiled_ms"]
    lines = [
        f"where the {found['measured_ms']:.4g} ms go: a pass of its own with the profiler, "
        f"whose {found['profiled_ms']:.4g} ms are scaled by {scale:.3g}",
        *_groups("operator", found["by_operator"]),
        *_groups(f"module, {_plural(found['depth'], 'level')}", found["by_module"]),
    ]
    kernels = sorted(found["kernels"], key=lambda kernel: -kernel["ms"])
    lines.append(f"  {'kernel':20}{'ms':>9}  {'share':28}module: what it stands for")
    for kernel in kernels[:ROWS]:
        stands_for = " + ".join(name.split(" ")[0] for name in kernel["absorbed"]) or "put in by the runtime"
        lines.append(
            f"  {kernel['operator']:20}{kernel['ms']:>9.4g}  {percent(kernel):28}{kernel['module']}: {stands_for}"
        )
    return [*lines, *_rest(kernels)]


def _groups(title: str, groups: Sequence[Mapping[str, Any]]) -> list[str]:
    width = max(20, *(len(group["name"]) + 2 for group in groups[:ROWS]))
    lines = [f"  {title:{width}}{'ms':>9}  {'share, 95 % interval':28}kernels"]
    lines += [f"  {g['name']:{width}}{g['ms']:>9.4g}  {percent(g):28}{g['kernels']}" for g in groups[:ROWS]]
    return [*lines, *_rest(groups)]


def _rest(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    rest = rows[ROWS:]
    return [f"  and {len(rest)} more: {sum(row['ms'] for row in rest):.4g} ms"] if rest else []
