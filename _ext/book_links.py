"""Local Sphinx extension that links names in code cells to the reference, by sphinx-codeautolink.

That package takes it for granted that every section has a title.
The sections into which sphinx-exercise puts an exercise and its solution have none: its analyser is taught them here.
"""

from __future__ import annotations

import pkgutil
from importlib import import_module
from typing import TYPE_CHECKING, Any

import sphinx_codeautolink.extension
from sphinx_codeautolink.extension.block import CodeBlockAnalyser

import scanvi_tutorial

if TYPE_CHECKING:
    from docutils import nodes
    from sphinx.application import Sphinx
    from sphinx.config import Config


class Analyser(CodeBlockAnalyser):
    """Reads the code of a page; leaves the list of open titles, at the end of a section, as it was at its beginning."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._open_sections: list[int] = []

    def visit_section(self, node: nodes.section) -> None:
        """Remember how many titles were open before this section."""
        self._open_sections.append(len(self.title_stack))
        super().visit_section(node)

    def depart_section(self, node: nodes.section) -> None:
        """Close the titles of this section, be it none, one, or also those of admonitions in it."""
        del self.title_stack[self._open_sections.pop() :]


def documented() -> dict[str, str]:
    """Return where the reference has what the package and its folders offer, by where a reader or Python finds it."""
    places = {}
    for found in pkgutil.iter_modules(scanvi_tutorial.__path__, "scanvi_tutorial."):
        folder = import_module(found.name) if found.ispkg else None
        for name in getattr(folder, "__all__", ()):
            thing = getattr(folder, name)
            if hasattr(thing, "__qualname__"):
                places |= with_members(thing, f"{thing.__module__}.{thing.__qualname__}", f"{found.name}.{name}")
    for name in scanvi_tutorial.__all__:  # `st.annotate` is a function, and a module has the same name
        thing = getattr(scanvi_tutorial, name)
        if hasattr(thing, "__qualname__"):
            place = f"{thing.__module__}.{thing.__qualname__}"
            places |= with_members(thing, f"scanvi_tutorial.{name}", places.get(place, place))
    return places


def with_members(thing: object, found: str, place: str) -> dict[str, str]:
    """Return where the reference has a function, or a class and what it defines."""
    members = [name for name in vars(thing) if not name.startswith("_")] if isinstance(thing, type) else []
    return {found: place} | {f"{found}.{name}": f"{place}.{name}" for name in members}


def configure(app: Sphinx, config: Config) -> None:
    """Read the cells of a chapter as one program, and know what is documented elsewhere than it is defined."""
    config.codeautolink_concat_default = True
    config.codeautolink_inventory_map = documented()


def setup(app: Sphinx) -> dict[str, Any]:
    """Register sphinx-codeautolink with the analyser above."""
    sphinx_codeautolink.extension.CodeBlockAnalyser = Analyser
    app.setup_extension("sphinx_codeautolink")
    app.connect("config-inited", configure)
    return {"version": "1", "parallel_read_safe": False, "parallel_write_safe": True}
