"""The pages hang together: links, reading order, search, theme, side bars, and a page for lost readers."""

import re
from itertools import pairwise
from pathlib import Path
from urllib.parse import unquote, urldefrag, urljoin

import pytest
from bs4 import BeautifulSoup
from chapters import LISTED, ROOT

pytestmark = [pytest.mark.browser, pytest.mark.xdist_group("whole")]
ORDER = [page.relative_to(ROOT).with_suffix(".html").as_posix() for page in LISTED]
SEARCHES = {  # a word that a reader may look for, and a page that has to be found
    "dropout": "03_networks",
    "molecule": "01_data",
    "dispersion": "04_model",
    "calibration": "08_evaluation",
    "posterior": "calibration",
    "umap": "06_figure",
    "pretraining": "05_training",
    "conformal": "13_guarantee",
    "enumeration": "02_sketch",
    "monocyte": "glossary",
}


@pytest.fixture(scope="module")
def soups(site) -> dict[str, BeautifulSoup]:
    """Return every page of the site, but for generated reports and redirects."""
    files = [path for path in site.rglob("*.html") if not {"_static", "_sources", "reports"} & set(path.parts)]
    return {
        path.relative_to(site).as_posix(): BeautifulSoup(path.read_text(encoding="utf-8"), "html.parser")
        for path in files
    }


def test_every_link_within_the_site_has_a_target(site, soups):
    names = {
        page: {tag["id"] for tag in soup.find_all(id=True)}
        | {tag["name"] for tag in soup.find_all("a", attrs={"name": True})}
        for page, soup in soups.items()
    }
    dead = []
    for page, soup in soups.items():
        if page == "404.html":  # its links name the address of the published site
            continue
        for link in soup.find_all("a", href=True):
            target, fragment = urldefrag(urljoin(f"http://book/{page}", link["href"]))
            if not target.startswith("http://book/"):
                continue
            path = unquote(target.removeprefix("http://book/").split("?")[0]) or "index.html"
            if not (site / path).is_file() or (fragment and path in names and unquote(fragment) not in names[path]):
                dead.append(f"{page}: {link['href']}")
    assert dead == []


def test_every_function_that_a_code_cell_calls_leads_to_its_place_in_the_reference(soups):
    called, linked = set(), set()
    for page, soup in soups.items():
        for cell in soup.select(".cell_input .highlight"):
            called |= {(page, name) for name in re.findall(r"\bst\.([\w.]+)\(", cell.get_text())}
            for link in cell.select("a[href*='/api.html#scanvi_tutorial.']"):
                name = link.get_text().removeprefix("st.")
                if link["href"].endswith("." + name.rpartition(".")[2]):
                    linked.add((page, name))
    assert len(called) > 50
    assert called - linked == set()


def test_every_page_is_in_the_table_of_contents(soups):
    assert set(soups) - set(ORDER) <= {"index.html", "search.html", "404.html", "genindex.html"}


def test_next_and_previous_follow_the_reading_order(soups):
    def follow(start: str, end: str) -> list[str]:
        seen = [start]
        while len(seen) <= len(ORDER) and (link := soups[seen[-1]].select_one(f"a.{end}")):
            seen.append(urljoin(f"/{seen[-1]}", link["href"]).lstrip("/"))
        return seen

    assert follow(ORDER[0], "right-next") == ORDER
    assert follow(ORDER[-1], "left-prev") == ORDER[::-1]


def test_every_page_has_one_title_and_skips_no_level(soups):
    for page, soup in soups.items():
        levels = [int(tag.name[1]) for tag in soup.select("article :is(h1, h2, h3, h4, h5, h6)")]
        if page in ORDER:
            assert levels.count(1) == 1, page
            assert all(after - before <= 1 for before, after in pairwise(levels)), (page, levels)


def test_the_door_leads_to_the_first_page(fresh):
    visit = fresh()
    visit.go("index.html")
    visit.page.wait_for_url(f"**/{ORDER[0]}")
    visit.page.locator("a.right-next").click()
    visit.page.wait_for_url(f"**/{ORDER[1]}")


@pytest.mark.parametrize(("word", "page"), SEARCHES.items())
def test_search_finds(fresh, word, page):
    visit = fresh()
    visit.go(f"search.html?q={word}")
    visit.page.wait_for_selector("#search-results ul.search li a")
    visit.page.wait_for_function("() => !document.querySelector('#search-progress')?.textContent.includes('...')")
    found = [link.get_attribute("href") for link in visit.page.locator("#search-results ul.search li a").all()]
    assert any(page in href for href in found), found
    assert visit.failures == visit.complaints == []


def test_search_opens_from_the_keyboard_and_goes_to_its_results(fresh):
    visit = fresh()
    visit.go(ORDER[1])
    visit.page.keyboard.press("Control+K")
    visit.page.keyboard.type("dispersion")
    visit.page.keyboard.press("Enter")
    visit.page.wait_for_url("**/search.html?q=dispersion*")
    visit.page.wait_for_selector("#search-results ul.search li a")


def test_the_theme_switch_turns_the_page_dark_and_is_remembered(fresh):
    visit = fresh()
    visit.go(ORDER[0])
    background = "() => getComputedStyle(document.body).backgroundColor"
    light, seen = visit.page.evaluate(background), {}
    for _ in range(3):
        visit.page.locator("button.theme-switch-button:visible").first.click()
        seen[visit.page.evaluate("() => document.documentElement.dataset.mode")] = visit.page.evaluate(background)
    assert set(seen) == {"auto", "light", "dark"}
    assert seen["light"] == light != seen["dark"]
    while visit.page.evaluate("() => document.documentElement.dataset.mode") != "dark":
        visit.page.locator("button.theme-switch-button:visible").first.click()
    visit.go(ORDER[2])
    assert visit.page.evaluate(background) == seen["dark"]


def test_the_first_stop_of_tab_skips_to_the_text(fresh):
    visit = fresh()
    visit.go(ORDER[1])
    visit.page.keyboard.press("Tab")
    link = visit.page.locator(":focus")
    assert re.search("skip to", link.inner_text(), re.IGNORECASE)
    assert visit.page.evaluate("() => document.activeElement.getBoundingClientRect().top >= 0"), "it can be seen"
    visit.page.keyboard.press("Enter")
    visit.page.keyboard.press("Tab")
    assert visit.page.evaluate("() => Boolean(document.activeElement.closest('main'))")


def test_one_search_field_shows_at_a_time_and_the_side_bar_folds(fresh):
    """Both went wrong in sphinx-book-theme 1.3 (its issues 986 and 999)."""
    visit = fresh()
    visit.go(ORDER[1])
    assert visit.page.locator(".search-button-field:visible").count() == 1
    bar = visit.page.locator(".bd-sidebar-primary").first
    before = bar.bounding_box()
    visit.page.locator("button.primary-toggle:visible").first.click()
    visit.page.wait_for_function(
        "x => document.querySelector('.bd-sidebar-primary').getBoundingClientRect().x !== x", arg=before["x"]
    )


def test_the_contents_open_on_a_phone_and_lead_to_a_chapter(fresh):
    visit = fresh("phone")
    visit.go(ORDER[0])
    visit.page.locator("button.primary-toggle:visible").first.click()
    link = visit.page.locator(".bd-sidebar-primary a.reference.internal:visible", has_text="Data: from counts")
    link.first.click()
    visit.page.wait_for_url(f"**/{ORDER[1]}")


def test_the_contents_of_a_page_open_on_a_phone_and_lead_to_a_section(fresh):
    visit = fresh("phone")
    visit.go(ORDER[1])
    link = visit.page.locator(".bd-sidebar-secondary a.nav-link").last
    assert not link.is_visible()
    visit.page.locator("button.secondary-toggle:visible").first.click()
    link.click()
    assert visit.page.evaluate("() => location.hash") == link.get_attribute("href")


@pytest.mark.parametrize("path", ["nowhere.html", "book/nowhere.html", "a/b/c/"])
def test_a_lost_reader_finds_a_styled_page_with_contents(fresh, base, path):
    visit = fresh()
    visit.go(path)
    assert "No page lives here" in visit.page.locator("main h1:visible").inner_text()
    assert visit.failures == [f"HTTP 404: {base}/{path}"], "all but the page itself is found"
    visit.page.locator("main a", has_text="Begin at the beginning").click()
    visit.page.wait_for_url(f"**/{ORDER[0]}")


def test_every_notebook_can_be_downloaded_with_its_outputs(site, soups):
    for page in LISTED:
        html = page.relative_to(ROOT).with_suffix(".html").as_posix()
        links = [link["href"] for link in soups[html].select("a[href$='.ipynb']") if "_sources" in link["href"]]
        if "kernelspec:" in page.read_text(encoding="utf-8"):
            assert links, html
            assert '"output_type"' in (site / urljoin(f"/{html}", links[0]).lstrip("/")).read_text(encoding="utf-8")


def test_no_page_names_a_path_of_this_machine(site):
    for file in [*site.rglob("*.html"), *site.glob("*.js"), *site.glob("*.xml")]:
        assert str(Path.home()) + "/" not in file.read_text(encoding="utf-8"), file
        assert f"{ROOT}/" not in file.read_text(encoding="utf-8"), file
