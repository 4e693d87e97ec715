"""What a graph needs so that ONNX Runtime's CUDA kernels run all of it."""
