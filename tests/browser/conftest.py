"""Fixtures of the browser tests: the built site, Chromium, and a page in it.

`make browser` runs these tests on `_build/html`. Elsewhere they say why they did not run; in CI that is a failure.
"""

import os
from pathlib import Path

import pytest
from browser.looking import Visit, context_of, missing
from serving import FLAGS, chromium, served


def pytest_collection_modifyitems(items):
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            item.add_marker(pytest.mark.browser)


@pytest.fixture(scope="session")
def site() -> Path:
    reason = missing()
    if reason and os.environ.get("CI") and os.environ.get("BOOK_SITE"):
        pytest.fail(reason, pytrace=False)
    if reason:
        pytest.skip(reason)
    return Path(os.environ["BOOK_SITE"]).resolve()


@pytest.fixture(scope="session")
def shots(site) -> Path:
    folder = site.parent / "screenshots"
    folder.mkdir(exist_ok=True)
    return folder


@pytest.fixture(scope="session")
def base(site):
    with served(site) as address:
        yield address


@pytest.fixture(scope="session")
def browser(site):
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        launched = driver.chromium.launch(executable_path=chromium(), headless=True, args=FLAGS)
        yield launched
        launched.close()


@pytest.fixture(scope="session")
def contexts(browser):
    """Return one profile for each width, whose cache keeps what all pages share."""
    return {
        view: context_of(browser, view, permissions=["clipboard-read", "clipboard-write"])
        for view in ("desktop", "phone")
    }


@pytest.fixture
def fresh(browser, base):
    """Return a function that begins a visit in an empty profile."""
    opened = []

    def begin(view: str = "desktop") -> Visit:
        opened.append(context_of(browser, view))
        return Visit.begin(opened[-1], base, view)

    yield begin
    for context in opened:
        context.close()
