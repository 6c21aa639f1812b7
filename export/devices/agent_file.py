"""The agent as one file: a zip archive that Python can run, and the command that starts it through a pipe."""

from __future__ import annotations

import functools
import io
import shlex
import zipfile
from importlib import resources

PACKAGES = ("espalier.export", "espalier.export.devices", "espalier.export.devices.agent")
_MAIN = """
import sys
import espalier.export  # first: it keeps onnxruntime from writing to disk
try:
    import numpy, onnxruntime
except ImportError as error:
    sys.exit("its Python %s has no onnxruntime (%s)" % (sys.executable, error))
from espalier.export.devices.agent.serve import main
main(sys.argv[1])
"""
_EPOCH = (1980, 1, 1, 0, 0, 0)

_START = """
import sys
sys.path[:] = [path for path in sys.path if path]
import hashlib, json, os, runpy, shutil, tempfile
stream = sys.stdin.buffer
announced = json.loads(stream.readline())
archive = stream.read(announced["size"])
if hashlib.sha256(archive).hexdigest() != announced["sha256"]:
    sys.exit("the agent arrived damaged")
folder = None
try:
    folder = tempfile.mkdtemp(prefix="espalier-")
    path = os.path.join(folder, "agent.pyz")
    with open(path, "wb") as file:
        file.write(archive)
except OSError as error:
    if folder:
        shutil.rmtree(folder)
    sys.exit("cannot write to %s (%s)" % (folder or "any temporary folder", error.strerror))
sys.argv = [path, folder]
try:
    runpy.run_path(path, run_name="__main__")
finally:
    shutil.rmtree(folder, ignore_errors=True)
"""
START = f"exec({_START!r})"
"""A one-line Python program that reads the agent from standard input, stores it in a new folder, and runs it.

The current folder is not searched for modules: it may contain a json.py."""


def start_command(python: str) -> str:
    """A shell command that starts the interpreter `python`, which then waits for the agent."""
    return f"{shlex.quote(python)} -u -c {shlex.quote(START)}"


@functools.cache
def agent_file() -> bytes:
    """The archive; the same bytes for the same source."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(zipfile.ZipInfo("__main__.py", _EPOCH), _MAIN)
        archive.writestr(zipfile.ZipInfo("espalier/__init__.py", _EPOCH), "")
        for package in PACKAGES:
            whole = package == PACKAGES[-1]
            for source in sorted(resources.files(package).iterdir(), key=lambda path: path.name):
                if source.name.endswith(".py") and (whole or source.name == "__init__.py"):
                    entry = zipfile.ZipInfo(f"{package.replace('.', '/')}/{source.name}", _EPOCH)
                    archive.writestr(entry, source.read_bytes(), zipfile.ZIP_DEFLATED)
    return buffer.getvalue()
