"""The data sets: one module per source, and a registry of their names (book/01_data.md)."""

from scanvi_tutorial.data.registry import REGISTRY, Source, load

__all__ = ["REGISTRY", "Source", "load"]
