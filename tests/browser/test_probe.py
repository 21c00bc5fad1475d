"""The map of chapter 6 answers mouse and keyboard, and is a still figure where no script may run."""

import json

import pytest
from browser.looking import context_of

pytestmark = [pytest.mark.browser, pytest.mark.xdist_group("probe")]
PAGE = "book/06_figure.html"


@pytest.fixture
def page(fresh):
    visit = fresh()
    visit.go(PAGE)
    return visit.page


def data_of(page):
    return json.loads(page.locator(".cell-probe script[type='application/json']").text_content())


def shown(page):
    """Return the cell that is named and its percentages."""
    cell = page.locator(".cell-probe .which").inner_text()
    return cell, [int(text.split()[0]) for text in page.locator(".cell-probe .share").all_inner_texts()]


def test_arrows_walk_from_the_least_certain_cell_to_the_most_certain(page):
    data = data_of(page)
    slider = page.get_by_label("From the least certain cell to the most certain")
    slider.focus()
    assert shown(page) == (data["cells"][0], data["percent"][0])
    page.keyboard.press("ArrowRight")
    assert shown(page) == (data["cells"][1], data["percent"][1])
    assert data["cells"][1] in slider.get_attribute("aria-valuetext")
    page.keyboard.press("End")
    assert shown(page) == (data["cells"][-1], data["percent"][-1])


def test_the_cell_under_the_pointer_is_shown(page):
    data = data_of(page)
    chart = page.locator(".cell-probe svg")
    chart.scroll_into_view_if_needed()
    box = chart.bounding_box()
    for number in (0, len(data["cells"]) // 2, -1):
        x, y = data["x"][number], data["y"][number]
        page.mouse.move(box["x"] + x / 1000 * box["width"], box["y"] + y / 800 * box["height"])
        cell, percent = shown(page)
        found = data["cells"].index(cell)
        assert abs(data["x"][found] - x) + abs(data["y"][found] - y) <= 4
        assert percent == data["percent"][found]


def test_a_finger_scrolls_the_page_and_a_tap_asks(fresh):
    visit = fresh("phone")
    visit.go(PAGE)
    chart = visit.page.locator(".cell-probe svg")
    assert chart.evaluate("chart => getComputedStyle(chart).touchAction") == "pan-y pinch-zoom"
    first = shown(visit.page)
    chart.click()
    assert shown(visit.page) != first


def test_the_same_figure_may_stand_on_a_page_twice(page):
    both = page.locator(".cell-probe").evaluate("one => one.outerHTML")
    page.set_content(both * 2)
    first, second = page.locator(".cell-probe input").all()
    before = first.input_value()
    second.focus()
    page.keyboard.press("End")
    assert first.input_value() == before != second.input_value()
    whiches = page.locator(".cell-probe .which").all_inner_texts()
    assert whiches[0] != whiches[1]


@pytest.mark.parametrize("view", ["desktop", "phone"])
def test_without_scripts_a_still_figure_remains(browser, base, view):
    context = context_of(browser, view, java_script_enabled=False)
    try:
        page = context.new_page()
        page.goto(f"{base}/{PAGE}")
        assert page.locator(".cell-probe svg").is_visible()
        assert not page.locator(".cell-probe input").is_visible()
        assert shown(page) == (data_of(page)["cells"][0], data_of(page)["percent"][0])
    finally:
        context.close()
