"""Wing: ONNX out, checked against torch, and timed on a real device."""

import os

# ONNX Runtime reports its use over the network and keeps a device id in the home folder, unless told so before it is
# loaded; its own switch, `disable_telemetry_events`, comes too late for both.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
