"""Operators whose results carry no derivative, by reason; and those that are refused for good.

Rules of a family's own operators are with the family: steps in `elementwise.py`, quantization in
`quantization.py`.
"""

from __future__ import annotations

from onnxtape.compiler.registry import refuse, zero_gradient

zero_gradient(
    *("And", "Or", "Xor", "Not"),
    *("Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "IsInf", "IsNaN"),
    because="makes truth values",
)
zero_gradient(
    *("ArgMax", "ArgMin", "NonZero", "NonMaxSuppression", "Multinomial"),
    because="makes indices",
)
zero_gradient("Shape", "Size", "SequenceLength", "OptionalHasElement", because="reads no element")
zero_gradient(
    *("EyeLike", "RandomNormalLike", "RandomUniformLike"),
    because="uses its input's shape and dtype only",
)
zero_gradient(
    *("Constant", "ConstantOfShape", "RandomNormal", "RandomUniform", "SequenceEmpty"),
    *("HannWindow", "HammingWindow", "BlackmanWindow"),
    because="has no floating-point input",
)
zero_gradient("Bernoulli", because="a sample is 0 or 1: constant in the probability between jumps")
zero_gradient("Hardmax", because="piecewise constant")
zero_gradient("MelWeightMatrix", because="rounds its band edges to whole bins")
zero_gradient(
    *("BitShift", "BitwiseAnd", "BitwiseNot", "BitwiseOr", "BitwiseXor"),
    *("ConvInteger", "QLinearConv"),
    *("ImageDecoder", "TfIdfVectorizer"),
    *("RegexFullMatch", "StringConcat", "StringNormalizer", "StringSplit"),
    because="computes on integers or strings",
)

refuse(
    *("SequenceConstruct", "SequenceInsert", "SequenceErase", "SequenceAt"),
    *("SplitToSequence", "ConcatFromSequence", "Optional", "OptionalGetElement"),
    because="sequences are seen through only where their contents and the positions are known "
    "beforehand, and here something comes at run time; stack the tensors and use Gather",
)
refuse("SequenceMap", because="its body works on sequences; stack the tensors and use Scan")
refuse("BitCast", because="it takes the bits of one number for another; Cast converts numbers")
refuse("Scatter", because="it is deprecated; ONNX has ScatterElements in its place")
