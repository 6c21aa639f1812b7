"""What `profile` and `compare` found, as text."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

from espalier.export.end_to_end import EndToEnd, Step
from espalier.export.load import Load
from espalier.export.operators import Group, Kernel, OperatorProfile
from espalier.nas.measurement import Latency
from espalier.recipes.commands.profile.results import FileComparison, Profile, TimedFile

ROWS = 12
"""Of the longest tables; the file of `-o` has all of them."""


def profile_text(found: Profile) -> str:
    """One file: its latency, and what else was asked for."""
    lines = latency_lines(found)
    if found.end_to_end is not None:
        lines += ["", *end_to_end(found.end_to_end)]
    if found.concurrency is not None:
        lines += ["", *concurrency(found.concurrency)]
    if found.operators is not None:
        lines += ["", *_operators(found.operators)]
    return "\n".join(lines)


def comparison_text(found: FileComparison) -> str:
    """Several files: the latency of each, and its ratio to the first."""
    lines = [line for file in found.files for line in (*latency_lines(file), "")]
    lines.append(f"timed in turns, against {found.comparison.baseline}:")
    for other in found.comparison.others:
        verdict = {None: "no significant difference", True: "faster", False: "slower"}[other.faster]
        lines.append(f"  {other.file}: {other.ratio:.4g} times as long {interval(other.ci95)}, {verdict}")
    return "\n".join(lines)


def latency_lines(found: TimedFile) -> list[str]:
    """The latency of one file, its cold start and where it was timed."""
    latency, environment = found.measurement.latency, found.measurement.environment
    own = ", each in its own process" if environment["fresh_processes"] else ""
    joules = found.joules_per_run
    energy = "energy: not measured on this device"
    if joules is not None:
        energy = f"energy: {joules:.4g} J per run, of everything running meanwhile ({environment['energy_source']})"
    return [
        f"{found.file}: {found.measurement.verdict}",
        f"  p50 {latency.p50:.4g} ms, 95 % interval {interval(latency.ci95)}",
        f"  {percentiles(latency)}",
        f"  mean {latency.mean:.4g} ms, standard deviation {latency.stdev:.4g} ms, {latency.count:,} runs "
        f"in {environment['sessions']} sessions{own}",
        f"  cold start: {_range(found.load_ms)} to load, {_range(found.first_run_ms)} first run",
        f"  {found.images_per_s:.4g} images/s, one run after the other",
        f"  {energy}",
        f"  {environment['provider']}, {_plural(environment['threads'], 'thread')}, batch {environment['batch']}",
        f"  environment {environment['id']}",
    ]


def percentiles(latency: Latency) -> str:
    """Those that are reported, and why the others are not."""
    values = {"p90": latency.p90, "p95": latency.p95, "p99": latency.p99}
    known = [f"{name} {value:.4g} ms" for name, value in values.items() if value is not None]
    missing = [name for name, value in values.items() if value is None]
    return ", ".join(known + [f"{', '.join(missing)} not reported: too few runs"] * bool(missing))


def interval(bounds: Sequence[float]) -> str:
    """An interval, to four digits."""
    low, high = bounds
    return f"[{low:.4g}, {high:.4g}]"


def _range(values_ms: Sequence[float]) -> str:
    return f"{median(values_ms):.4g} ms ({min(values_ms):.4g} to {max(values_ms):.4g})"


def _plural(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


def percent(part: Step | Group | Kernel) -> str:
    """A share with its interval."""
    low, high = part.ci95
    return f"{part.share:7.1%} [{low:.1%}, {high:.1%}]"


def end_to_end(found: EndToEnd) -> list[str]:
    """Whole requests, and their steps."""
    latency = found.latency
    images = _plural(found.images, "image")
    lines = [
        f"whole requests ({images}, from their bytes in memory to the outputs): {found.verdict}",
        f"  p50 {latency.p50:.4g} ms, 95 % interval {interval(latency.ci95)}; {percentiles(latency)}",
        f"  {'step':12}{'p50 ms':>9}  share of the time, 95 % interval",
    ]
    return lines + [f"  {step.name:12}{step.latency.p50:>9.4g}  {percent(step)}" for step in found.steps]


def concurrency(loads: Sequence[Load]) -> list[str]:
    """A line for each batch and number of callers."""
    lines = [
        "throughput: simultaneous callers of one session, each sending its next request when the last is answered",
        f"  {'batch':>5}{'callers':>8}{'requests/s':>11}{'images/s':>10}  {'95 % interval':20}"
        f"{'p50 ms':>8}{'p90':>8}{'p95':>8}{'p99':>8}",
    ]
    for load in loads:
        latency = load.latency
        times = [latency.p50, latency.p90, latency.p95, latency.p99]
        lines.append(
            f"  {load.batch:>5}{load.callers:>8}{load.requests_per_s:>11.4g}{load.images_per_s:>10.4g}  "
            f"{interval(load.ci95):20}{''.join(f'{_or_dash(ms):>8}' for ms in times)}  {load.verdict}"
        )
    if any(load.latency.p99 is None for load in loads):
        lines.append("  - too few runs for this percentile")
    return lines


def _or_dash(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"


def _operators(found: OperatorProfile) -> list[str]:
    scale = found.measured_ms / found.profiled_ms
    lines = [
        f"where the {found.measured_ms:.4g} ms go: a separate pass with the profiler, "
        f"whose {found.profiled_ms:.4g} ms are scaled by {scale:.3g}",
        *_groups("operator", found.by_operator),
        *_groups(f"module, {_plural(found.depth, 'level')}", found.by_module),
    ]
    kernels = sorted(found.kernels, key=lambda kernel: -kernel.ms)
    lines.append(f"  {'kernel':20}{'ms':>9}  {'share':28}module: nodes of the file")
    for kernel in kernels[:ROWS]:
        nodes = " + ".join(name.split(" ")[0] for name in kernel.absorbed) or "inserted by the runtime"
        lines.append(f"  {kernel.operator:20}{kernel.ms:>9.4g}  {percent(kernel):28}{kernel.module}: {nodes}")
    return [*lines, *_rest(kernels)]


def _groups(title: str, groups: Sequence[Group]) -> list[str]:
    width = max(20, *(len(group.name) + 2 for group in groups[:ROWS]))
    lines = [f"  {title:{width}}{'ms':>9}  {'share, 95 % interval':28}kernels"]
    lines += [f"  {g.name:{width}}{g.ms:>9.4g}  {percent(g):28}{g.kernels}" for g in groups[:ROWS]]
    return [*lines, *_rest(groups)]


def _rest(rows: Sequence[Group] | Sequence[Kernel]) -> list[str]:
    rest = rows[ROWS:]
    return [f"  and {len(rest)} more: {sum(row.ms for row in rest):.4g} ms"] if rest else []
