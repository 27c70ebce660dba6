"""Grid methods as ONNX graphs: export from torch, and inference with onnxruntime."""

ONNX_SUFFIX = ".onnx"
