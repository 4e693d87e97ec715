"""What operators make of inputs that are spread over parts of the batch.

Importing this registers all rules.
"""

from onnxtape.compiler.sharding.local import Local, placed
from onnxtape.compiler.sharding.rules import arithmetic, images, shapes

__all__ = ["Local", "arithmetic", "images", "placed", "shapes"]
