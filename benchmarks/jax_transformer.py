"""The halves of a Transformer's block in JAX, which is imported when they are called."""

from typing import Any


def normalized(x: Any, gamma: Any, beta: Any, *, epsilon: float) -> Any:
    """Layer normalization over the last axis."""
    import jax

    mean = x.mean(axis=-1, keepdims=True)
    variance = x.var(axis=-1, keepdims=True)
    return (x - mean) * jax.lax.rsqrt(variance + epsilon) * gamma + beta


def self_attention(
    x: Any, qkv: Any, qkv_b: Any, out: Any, out_b: Any, *, heads: int, **options: Any
) -> Any:
    """Attention of x, (batch, length, width), to itself, and the projection of its result.

    One product for query, key and value; `jax.nn.dot_product_attention`, which takes the options.

    Args:
        qkv: the matrices of all three, side by side: (width, 3 width).
    """
    import jax

    parts = (x @ qkv + qkv_b).reshape(*x.shape[:2], 3, heads, -1)
    query, key, value = (parts[:, :, i] for i in range(3))
    attended = jax.nn.dot_product_attention(query, key, value, **options)
    return attended.reshape(x.shape) @ out + out_b


def feed_forward(x: Any, wide: Any, wide_b: Any, narrow: Any, narrow_b: Any) -> Any:
    """Two dense layers with a gelu between them."""
    import jax

    return jax.nn.gelu(x @ wide + wide_b, approximate=False) @ narrow + narrow_b
