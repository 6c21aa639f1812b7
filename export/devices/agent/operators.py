"""The time of each node by ONNX Runtime's own profiler, in a separate pass since it slows every run down."""

from __future__ import annotations

import base64
import bisect
import json
import statistics
import tempfile
from pathlib import Path
from typing import Any, Callable  # noqa: UP035 - Python 3.8

from espalier.export.devices.agent.rounds import runs_within, warm
from espalier.export.devices.agent.session import open_session, provider_name, runner
from espalier.export.devices.agent.system import default_threads

MAX_RUNS = 100
"""Every run adds an event for each node to the profile; medians need no more runs."""
_TIME_OF = "_kernel_time"


def time_operators(request: dict[str, Any], alive: Callable[[], None]) -> dict[str, Any]:
    """The median time of each node that ONNX Runtime runs for `request["files"][0]`, over some runs.

    Args:
        request: also contains `threads` and `provider` (None for the defaults), `batch`, `seed`, `dims`,
            `milliseconds`, `min_runs`, and `folder` for temporary files.
        alive: called regularly.

    Returns:
        `nodes`, each with `name`, `op`, `provider` and `ms`, in the order in which they run; `runs`; `graph`, the
        optimised network without its weights as an ONNX file in base64.
    """
    path = request["files"][0]
    threads, provider = request["threads"] or default_threads(), provider_name(request["provider"])
    with tempfile.TemporaryDirectory(prefix="profile-", dir=request["folder"]) as folder:
        optimized = Path(folder) / "optimized.onnx"
        session = open_session(
            path, threads, provider, profile_to=str(Path(folder) / "profile"), optimized_to=str(optimized)
        )
        run_once = runner(session, path, request)
        warm(run_once, alive)
        runs = min(runs_within([run_once], request), MAX_RUNS)
        for _ in range(runs):
            run_once()
            alive()
        events = json.loads(Path(session.end_profiling()).read_bytes())
        graph = base64.b64encode(optimized.read_bytes()).decode()
    return {"runs": runs, "threads": threads, "provider": provider, "nodes": nodes_of(events, runs), "graph": graph}


def nodes_of(events: list[dict[str, Any]], runs: int) -> list[dict[str, Any]]:
    """The nodes of ONNX Runtime's trace with their median times over the last `runs` runs, in milliseconds.

    A node inside another one (in the body of a loop) is part of that node's time and not listed.
    """
    timed = sorted(
        (event for event in events if event.get("ph") == "X"), key=lambda event: (event["ts"], -event["dur"])
    )
    spans = [(event["ts"], event["ts"] + event["dur"]) for event in timed if event["name"] == "model_run"][-runs:]
    found: dict[tuple[str, str], dict[str, Any]] = {}
    times: dict[tuple[str, str], list[float]] = {}
    nodes = [event for event in timed if event.get("cat") == "Node" and event["name"].endswith(_TIME_OF)]
    starts = [event["ts"] for event in nodes]
    for number, (begin, end) in enumerate(spans):
        until = begin
        for event in nodes[bisect.bisect_left(starts, begin) : bisect.bisect_left(starts, end)]:
            if event["ts"] < until:
                continue
            until = event["ts"] + event["dur"]
            args, name = event["args"], event["name"][: -len(_TIME_OF)]
            key = (str(args.get("node_index")), name)
            found.setdefault(key, {"name": name, "op": args["op_name"], "provider": args.get("provider")})
            of_runs = times.setdefault(key, [])
            of_runs.extend([0.0] * (number + 1 - len(of_runs)))
            of_runs[number] += event["dur"] / 1000
    return [
        {**node, "ms": statistics.median(times[key] + [0.0] * (len(spans) - len(times[key])))}
        for key, node in found.items()
    ]
