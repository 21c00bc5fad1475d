"""Every page of the book does what it should, on a desktop and on a phone, in light and in dark."""

import pytest
from browser.looking import COLORS, CONTROLS, FOCUSED, LAYOUT, LOOK, NOT_FORMULAS, WCAG, Visit
from chapters import LISTED, ROOT

PAGES = [page.relative_to(ROOT).with_suffix(".html").as_posix() for page in LISTED] + ["search.html", "404.html"]
MOST_BYTES = 3_000_000  # of a page with all that it loads, but for MathJax, which all pages share
RULES = {
    ("desktop", "light"): WCAG,
    ("desktop", "dark"): COLORS,
    ("phone", "light"): LAYOUT,
    ("phone", "dark"): LAYOUT,
}

pytestmark = pytest.mark.browser


def views():
    for path in PAGES:
        for view in ("desktop", "phone"):
            mark = pytest.mark.xdist_group(f"{path} {view}")
            yield pytest.param((path, view), marks=mark, id=f"{path.removesuffix('.html')}-{view}")


@pytest.fixture(scope="module", params=views())
def visit(request, base, contexts, shots):
    path, view = request.param
    visit = Visit.begin(contexts[view], base, view)
    visit.go(path)
    for scheme in ("dark", "light"):  # light last, for the tests that follow
        visit.theme(scheme)
        name = f"{path.removesuffix('.html').replace('/', '-')}-{view}-{scheme}.jpeg"
        visit.page.screenshot(path=shots / name, full_page=True, quality=80, type="jpeg")
    yield visit
    visit.page.close()


def test_the_console_is_silent(visit):
    assert visit.complaints == []


def test_every_request_stays_on_the_site_and_is_answered(visit):
    assert visit.failures == []
    assert visit.weights, "the page was served"


def test_a_page_is_light_enough_for_a_slow_line(visit):
    sizes = {url: size for url, size in visit.weights.items() if "/mathjax/" not in url}
    assert sum(sizes.values()) < MOST_BYTES, sorted(sizes.items(), key=lambda item: -item[1])[:5]


def test_all_mathematics_is_typeset(visit):
    formulas = visit.page.locator("span.math, div.math")
    assert visit.page.locator(":is(span, div).math mjx-container").count() >= formulas.count()
    assert visit.page.locator("mjx-merror").all_inner_texts() == []
    assert "\\(" not in visit.page.locator("main").first.inner_text()


def test_nothing_scrolls_sideways(visit):
    wide = visit.page.evaluate(
        "() => document.documentElement.scrollWidth <= innerWidth ? [] :"
        " [...document.querySelectorAll('body *')].filter((e) => e.getBoundingClientRect().right > innerWidth + 1)"
        ".slice(0, 5).map((e) => e.outerHTML.slice(0, 150))"
    )
    assert wide == []


def test_every_picture_is_there_and_says_what_it_shows(visit):
    visit.page.evaluate("() => { for (const image of document.images) image.loading = 'eager' }")
    visit.page.evaluate("() => Promise.allSettled([...document.images].map((image) => image.decode()))")
    pictures = visit.page.evaluate("() => [...document.images].map((i) => [i.src, i.naturalWidth, i.alt.trim()])")
    assert [src for src, width, _ in pictures if not width] == []
    assert [src for src, _, alt in pictures if not alt or "_images/" in alt] == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_no_violation_of_wcag_2_1_aa(visit, scheme):
    """In the dark only colors differ, and on a phone all but colors: their rule is slow, so it runs where they do."""
    from axe_playwright_python.sync_playwright import Axe

    visit.theme(scheme)
    try:
        found = Axe().run(visit.page, NOT_FORMULAS, RULES[visit.view, scheme]).response["violations"]
    finally:
        visit.theme("light")
    nodes = [(item["id"], node) for item in found for node in item["nodes"]]
    assert [f"{name}: {node['html'][:200]} {node['failureSummary']}" for name, node in nodes] == []


def test_the_keyboard_reaches_every_control_and_shows_where_it_is(visit):
    page = visit.page
    page.evaluate("() => { document.activeElement.blur(); getSelection().removeAllRanges(); scrollTo(0, 0) }")
    controls = page.evaluate(CONTROLS)
    before = page.evaluate(f"() => [...document.querySelectorAll('[data-control]')].map({LOOK})")
    reached, dim = set(), []
    for _ in range(2 * len(controls) + 10):  # boxes that scroll are stops, too
        if len(reached) == len(controls):
            break
        page.keyboard.press("Tab")
        now = page.evaluate(FOCUSED)
        if now["number"] is None:
            continue
        number = int(now["number"])
        reached.add(number)
        if now["look"] == before[number] or not now["seen"]:
            dim.append(controls[number])
    assert [controls[i] for i in range(len(controls)) if i not in reached] == []
    assert dim == []


def test_what_is_folded_opens_by_keyboard(visit):
    """Solutions of exercises and code that a page hides."""
    for number, summary in enumerate(visit.page.locator("article details > summary").all()):
        content = summary.locator("xpath=following-sibling::*[1]")
        if summary.locator("xpath=..").get_attribute("open") is not None:
            continue
        assert not content.is_visible(), f"fold {number} is open from the start"
        summary.press("Enter")
        assert content.is_visible(), f"fold {number} stays shut"
        summary.press("Enter")


def test_solutions_wait_until_they_are_asked_for(visit):
    for solution in visit.page.locator("article .admonition.solution, article .solution").all():
        assert solution.locator("xpath=ancestor-or-self::*").locator("details, button").count(), "no way to open it"


def test_the_copy_button_copies_the_code_beside_it(visit):
    buttons = visit.page.locator("button.copybtn:visible").all()
    assert buttons or not visit.page.locator("div.cell_input:visible").count()
    for button in buttons[:1]:
        code = visit.page.locator(button.get_attribute("data-clipboard-target")).inner_text()
        button.focus()
        button.press("Enter")
        visit.page.wait_for_function("() => navigator.clipboard.readText().then(Boolean)")
        copied = visit.page.evaluate("() => navigator.clipboard.readText()")
        assert copied.strip() == code.strip()
