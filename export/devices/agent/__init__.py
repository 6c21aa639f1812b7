"""What runs on a device: a package of the standard library, numpy and onnxruntime alone, sent there as one file.

It opens ONNX files, times runs and says what it saw, in JSON lines over its standard streams. It knows nothing of
statistics: those are the host's. It runs on Python 3.8 or newer, for boards are not updated.
"""
