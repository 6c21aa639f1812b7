"""`nas profile`: how long an ONNX file takes, how far to trust it, and where the time goes."""
