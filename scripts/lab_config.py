"""Settings of JupyterLab for those who edit the chapters: `make lab`.

Jupytext saves both files of a pair. The notebook is saved without outputs and without what JupyterLab adds to its
metadata, so that `git status` shows what was edited and nothing else.
"""

from typing import Any

KEPT = {"notebook": {"jupytext", "kernelspec"}, "cell": {"tags", "mystnb", "nbmake"}}  # as in pyproject.toml


def without_outputs(model: dict[str, Any], path: str, **_: Any) -> None:
    """Take outputs out of a chapter's notebook that is about to be written to disk."""
    if model["type"] != "notebook" or not path.startswith("book/"):
        return
    notebook = model["content"]
    notebook["metadata"] = {key: value for key, value in notebook["metadata"].items() if key in KEPT["notebook"]}
    for cell in notebook["cells"]:
        cell["metadata"] = {key: value for key, value in cell["metadata"].items() if key in KEPT["cell"]}
        if cell["cell_type"] == "code":
            cell["outputs"], cell["execution_count"] = [], None


c = get_config()  # type: ignore[name-defined]  # noqa: F821
c.FileContentsManager.pre_save_hook = without_outputs
c.LabApp.default_url = "/lab/tree/book"
