"""How the browser tests look at the built book: a server of its own, and visits that note what happens.

Nothing leaves the machine: every request but those to the server is refused and noted.
"""

from __future__ import annotations

import importlib.util
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from serving import chromium

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, Page, Request, Response, Route

VIEWS = {
    "desktop": {"viewport": {"width": 1366, "height": 900}},
    "phone": {"viewport": {"width": 390, "height": 844}, "is_mobile": True, "has_touch": True},
}
AXE = {"resultTypes": ["violations"], "preload": False}  # fetching style sheets anew takes long and finds nothing more
WCAG = {**AXE, "runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa"]}
LAYOUT = {**WCAG, "rules": {"color-contrast": {"enabled": False}}}  # on a phone, whose colors are those of a desktop
COLORS = {**AXE, "runOnly": {"type": "rule", "values": ["color-contrast", "link-in-text-block"]}}
NOT_FORMULAS = {"exclude": [["mjx-container"]]}  # thousands of glyphs, all in the color of the text around them

# Everything that Tab should reach, numbered in the order of the page.
CONTROLS = """() => {
  const shown = (e) => e.checkVisibility({visibilityProperty: true}) && !e.closest("[inert]");
  const all = [...document.querySelectorAll("a[href], button, input, select, textarea, summary, [tabindex]")]
    .filter((e) => e.tabIndex >= 0 && !e.disabled && shown(e));
  all.forEach((e, i) => { e.dataset.control = i; });
  return all.map((e) => e.outerHTML.slice(0, 120));
}"""
# How a control looks, so that a look with focus can be told from one without.
LOOK = """(e) => {
  const s = getComputedStyle(e);
  const outline = s.outlineStyle === "none" ? "" : `${s.outlineWidth} ${s.outlineStyle} ${s.outlineColor}`;
  return [outline, s.boxShadow, s.backgroundColor, s.borderColor, s.textDecoration, s.opacity, s.transform].join("|");
}"""
FOCUSED = f"""() => {{
  const e = document.activeElement;
  const box = e.getBoundingClientRect();
  const seen = box.right > 0 && box.left < innerWidth && box.bottom > 0 && box.top < innerHeight;
  return {{number: e.dataset.control ?? null, look: ({LOOK})(e), seen: seen && +getComputedStyle(e).opacity > 0.2}};
}}"""


def missing() -> str:
    """Return why the browser tests cannot run here, or nothing."""
    if not os.environ.get("BOOK_SITE"):
        return "browser tests run on a built site: make book, then make browser"
    if not (Path(os.environ["BOOK_SITE"]) / "index.html").is_file():
        return f"there is no built site in {os.environ['BOOK_SITE']}: make book"
    for module in ("playwright", "axe_playwright_python"):
        if importlib.util.find_spec(module) is None:
            return f"the Python package {module} is not installed: pip install -e .[browser]"
    if chromium() is None:
        return "Chromium is not installed: apt-get install chromium, or name another by CHROMIUM=/path/to/it"
    return ""


@dataclass
class Visit:
    """A page that is open in the browser, and what happened since it was asked for.

    Args:
        page: The open page.
        base: Address of the site, without a slash at its end.
        path: The page within the site.
        view: `desktop` or `phone`.
    """

    page: Page
    base: str
    path: str = ""
    view: str = "desktop"
    complaints: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    weights: dict[str, int] = field(default_factory=dict)

    @classmethod
    def begin(cls, context: BrowserContext, base: str, view: str) -> Visit:
        """Open an empty page that notes all that happens to it."""
        visit = cls(context.new_page(), base, view=view)
        visit.page.route(lambda url: not url.startswith((f"{base}/", "data:", "blob:")), visit.refuse)
        visit.page.on("console", lambda said: visit.hear(said.type, said.text))
        visit.page.on("pageerror", lambda error: visit.complaints.append(f"script error: {error}"))
        visit.page.on("requestfailed", visit.failed)
        visit.page.on("response", visit.answered)
        return visit

    def refuse(self, route: Route) -> None:
        """Refuse a request to another host, and note it."""
        self.failures.append(f"asked another host: {route.request.url}")
        route.abort()

    def hear(self, kind: str, text: str) -> None:
        """Note what a page says in the console, but for chatter."""
        if kind in {"error", "warning"}:
            self.complaints.append(f"console {kind}: {text}")

    def failed(self, request: Request) -> None:
        """Note a request that came to nothing."""
        self.failures.append(f"failed: {request.url} ({request.failure})")

    def answered(self, response: Response) -> None:
        """Note what an answer weighs, and whether it is an error."""
        if response.status >= 400:
            self.failures.append(f"HTTP {response.status}: {response.url}")
        self.weights[response.url] = int(response.headers.get("content-length", 0))

    def go(self, path: str) -> None:
        """Open a page of the site and wait until its mathematics is set."""
        self.path = path
        self.page.goto(f"{self.base}/{path}", wait_until="load")
        self.settle()

    def settle(self) -> None:
        """Wait until the mathematics of the page is set and nothing moves any more."""
        self.page.wait_for_function(
            "() => !document.querySelector('span.math, div.math') || window.MathJax?.startup?.promise", timeout=30_000
        )
        self.page.evaluate("() => window.MathJax?.startup?.promise?.then(() => true) ?? true")

    def theme(self, scheme: str) -> None:
        """Let the reader's system prefer light or dark."""
        self.page.emulate_media(color_scheme=scheme)
        self.page.wait_for_function("theme => document.documentElement.dataset.theme === theme", arg=scheme)
        self.page.evaluate("() => document.getAnimations().forEach((motion) => motion.cancel())")


def context_of(browser: Browser, view: str, **options: Any) -> BrowserContext:
    """Return an empty profile of the browser as wide as a desktop or a phone."""
    context = browser.new_context(**VIEWS[view], reduced_motion="reduce", **options)
    context.set_default_timeout(20_000)
    return context
