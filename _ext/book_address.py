"""Where the book lives, and what hangs on it: buttons, sitemap, social cards and a page for lost readers.

The repository is `book_repository` of _config.yml (`owner/name`), or else what GitHub Actions and Read the Docs say of
the checkout they build. Where nobody knows it, no button points at it: what is left works in any folder, on any server.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from sphinx.errors import ConfigError

if TYPE_CHECKING:
    from sphinx.application import Sphinx
    from sphinx.config import Config

LOST = """<h1>No page lives here</h1>
<p>The address may be mistyped, or the page may have moved.
The contents beside this text list every page there is, and the search field looks through all of them.</p>
<p><a href="{home}">Begin at the beginning.</a></p>"""
NOTEBOOKS = "notebooks"  # the branch to which the site's workflow pushes them
CARD = "_static/logo.png"  # logo.svg, drawn four times as large: cards take no SVG
NOT_FOR_CATALOGUES = ["404.html", "genindex.html", "search.html"]


@dataclass(frozen=True)
class Address:
    """Where the sources are and where the pages will be; empty where unknown.

    Args:
        repository: Address of the repository, such as `https://github.com/owner/name`.
        branch: The branch that buttons point at.
        site: Address of the built book, ending with a slash.
    """

    repository: str = ""
    branch: str = "main"
    site: str = ""

    @classmethod
    def find(cls, environ: Mapping[str, str] = os.environ, repository: str = "", site: str = "") -> Address:
        """Return the address that the settings name, or else the service that builds the book.

        Args:
            environ: The environment of the build.
            repository: `owner/name` on GitHub; wins over what the environment says.
            site: Address of the built book; wins over GitHub Pages of the repository.

        Raises:
            ConfigError: The repository is not of the form `owner/name`, or the site is not a web address.
        """
        source = environ.get("READTHEDOCS_GIT_CLONE_URL", "")
        cloned = re.search(r"github\.com[/:]([\w.-]+/[\w.-]+?)(\.git)?/?$", source)
        name = repository or environ.get("GITHUB_REPOSITORY", "") or (cloned[1] if cloned else "")
        if name and not re.fullmatch(r"[\w.-]+/[\w.-]+", name):
            raise ConfigError(
                f"the repository is {name!r}, but must read owner/name: set book_repository in _config.yml "
                "or GITHUB_REPOSITORY so"
            )
        site = site or environ.get("READTHEDOCS_CANONICAL_URL", "") or (pages_of(*name.split("/")) if name else "")
        if site and not re.match(r"https?://[^/]+", site):
            raise ConfigError(
                f"book_site in _config.yml is {site!r}, but must be an address such as https://example.org/"
            )
        return cls(f"https://github.com/{name}" if name else "", "main", f"{site.rstrip('/')}/" if site else "")

    @property
    def name(self) -> str:
        """The repository as `owner/name`; empty where unknown."""
        return self.repository.removeprefix("https://github.com/")


def pages_of(owner: str, name: str) -> str:
    """Return where GitHub Pages puts the site of a repository."""
    home = f"https://{owner.lower()}.github.io/"
    return home if name.lower() == f"{owner.lower()}.github.io" else f"{home}{name}/"


def configure(app: Sphinx, config: Config) -> None:
    """Tell the theme and the extensions where the book lives."""
    address = app.book_address  # type: ignore[attr-defined]
    if address.repository:
        config.html_theme_options = {
            **config.html_theme_options,
            "repository_url": address.repository,
            "repository_branch": address.branch,
            "path_to_docs": "",
            "use_repository_button": True,
            "use_edit_page_button": True,
            "use_issues_button": True,
            "launch_buttons": {
                "notebook_interface": "jupyterlab",
                "binderhub_url": "https://mybinder.org",
                "colab_url": "https://colab.research.google.com",
            },
        }
    root = urlsplit(address.site).path or "/"
    config.notfound_urls_prefix = root
    config.notfound_context = {"title": "No page lives here", "body": LOST.format(home=root)}
    if address.site:
        config.html_baseurl = address.site  # the canonical address of each page
        config.sitemap_url_scheme = "{link}"
        config.sitemap_excludes = NOT_FOR_CATALOGUES
        config.ogp_site_url = address.site
        config.ogp_social_cards = {"image": CARD, "image_mini": CARD, "line_color": "#0b5394"}


def open_notebooks_for_readers(
    app: Sphinx, pagename: str, templatename: str, context: dict[str, Any], doctree: Any
) -> None:
    """Let the buttons of a page open the notebook for readers: Colab on its branch, Binder where it has made it.

    The theme takes the notebook beside the chapter, whose prose is MyST.
    """
    before, name = f"/{app.book_address.branch}/{pagename}.ipynb", Path(pagename).name  # type: ignore[attr-defined]
    buttons = [button for group in context.get("header_buttons", []) for button in group.get("buttons", [])]
    for button in buttons:
        url = button.get("url") or ""
        if "colab" in url:
            button["url"] = url.replace(f"/blob{before}", f"/blob/{NOTEBOOKS}/{name}.ipynb")
        elif "binder" in url:
            button["url"] = url.replace(f"tree/{pagename}.ipynb", f"tree/_build/notebooks/{name}.ipynb")


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the extension, and those that need an address where there is one."""
    app.add_config_value("book_repository", "", "html")
    app.add_config_value("book_site", "", "html")
    address = Address.find(os.environ, app.config.book_repository, app.config.book_site)
    app.book_address = address  # type: ignore[attr-defined]
    app.setup_extension("notfound.extension")
    if address.site:
        app.setup_extension("sphinx_sitemap")
        app.setup_extension("sphinxext.opengraph")
    app.connect("config-inited", configure, priority=900)
    app.connect("html-page-context", open_notebooks_for_readers, priority=900)  # after the theme
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
