"""Convolutions in the layout in which ONNX Runtime's own CPU kernels are fastest.

A rewrite of the graph that one session is going to run on the CPU, not of what is exported.

In the blocked layout ("NCHWc") channels come in blocks of 8 or 16 numbers, as many as the processor
takes at once, and a block's numbers lie side by side: (n, channels / block, height, width, block).
ONNX Runtime has convolutions on it that need no unfolded image, in the domain
``com.microsoft.nchwc``, and two operators that change the layout, ReorderInput and ReorderOutput.
ONNX Runtime uses them by itself where kernels are constants, that is, never while they are trained.
A blocked value still has the shape (n, channels, height, width) as far as ONNX Runtime knows.

On two cores with AVX-512, 32x16x32x32 with 16 kernels of 3x3: 1.75 ms by Conv, 0.70 blocked, and
0.10 for each change of layout.
"""
