"""Wing: ONNX out, checked against torch, and timed on a real device."""
