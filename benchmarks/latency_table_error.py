"""How far tables of latencies are off, before and after calibration, on random networks that nothing was fitted to.

For each space a table is built and checked as `nas lut build` and `nas lut check` do. What is measured stays in the
folder, so that a killed run goes on; a line of JSON for each space is appended to `errors.jsonl` there.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

from espalier.nas.progress import silent
from espalier.recipes.commands.lut.command import build_table, check_file, check_text
from espalier.recipes.commands.lut.space_source import given_space

SPACES = {
    "nasbench201": ("nasbench201", 32, 10),
    "mobilenet": ("mobilenet:width=0.75", 112, 100),
    "vit": ("vit", 64, 100),
    "mobilenetv3": ("mobilenetv3:width=0.75", 112, 100),
}
"""Name, options, height and width of images, classes."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--spaces", nargs="+", choices=SPACES, default=["nasbench201", "mobilenet", "vit"])
    parser.add_argument("--folder", type=Path, default=Path("runs/latency_tables"))
    parser.add_argument("--device", default="local")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--networks", type=int, default=30)
    parser.add_argument("--calibrate", type=int, default=20)
    parser.add_argument("--block-seconds", type=float, default=0.2)
    parser.add_argument("--network-seconds", type=float, default=0.6)
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    for name in options.spaces:
        print(f"{name}: {error_of(name, options)}\n", flush=True)


def error_of(name: str, options: argparse.Namespace) -> str:
    """Build and check the table of one space; the text of the check."""
    from espalier.export.devices.base import MeasureSpec

    text, size, classes = SPACES[name]
    given = given_space(None, (), space=text, image_size=size, channels=3, classes=classes)
    table = options.folder / f"{name}.json"
    spec = MeasureSpec(threads=options.threads, sessions=4, seconds=options.block_seconds, min_runs=5)
    begun = time.monotonic()
    if not table.exists():
        build_table(given, table, device=options.device, spec=spec, track=silent)
    built = time.monotonic()
    check = check_file(
        table,
        space=None,
        image_size=None,
        channels=None,
        classes=None,
        device=options.device,
        threads=None,
        batch=None,
        networks=options.networks,
        calibrate=options.calibrate,
        seconds=options.network_seconds,
        any_device=False,
        track=silent,
    )
    check.calibrated.write(options.folder / f"{name}.calibrated.json")
    seconds = {"build_s": built - begun, "check_s": time.monotonic() - built}
    with (options.folder / "errors.jsonl").open("a") as file:
        file.write(json.dumps({"space": name, **seconds, **check.to_dict()}) + "\n")
    return f"built in {seconds['build_s']:.0f} s, checked in {seconds['check_s']:.0f} s\n{check_text(check)}"


if __name__ == "__main__":
    main()
