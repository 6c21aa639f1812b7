"""Find and shrink neural networks for real hardware."""

__version__ = "0.2.0"
