"""Grid methods as ONNX graphs: made from torch, and run by onnxruntime."""

ONNX_SUFFIX = ".onnx"
