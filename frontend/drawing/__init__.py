"""Pictures of models, as SVG."""

from onnxtape.drawing.model_plot import plot_model

__all__ = ["plot_model"]
