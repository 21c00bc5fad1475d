"""Where counts come from: one module per source, and a registry that knows them by name (book/01_data.md)."""

from scanvi_tutorial.data.registry import REGISTRY, Source, load

__all__ = ["REGISTRY", "Source", "load"]
