"""Pictures of models and of compiled steps, as SVG."""

from onnxtape.drawing.model_plot import plot_model
from onnxtape.drawing.step_plot import plot_step

__all__ = ["plot_model", "plot_step"]
