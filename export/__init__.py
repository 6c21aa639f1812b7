"""Wing: ONNX out, checked against torch, and timed on a real device."""

import os

if __name__ != "espalier.export":
    raise ImportError("import espalier.export, not export: the folder is a part of the package espalier")

# ONNX Runtime reports its use over the network and keeps a device id in the home folder, unless told so before it is
# loaded; its own switch, `disable_telemetry_events`, comes too late for both.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
