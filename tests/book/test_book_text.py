"""The text of the book keeps the rules by which it is written, and the rules catch what they are for."""

import ast
import re
from collections import Counter

import pytest
from chapters import CHAPTERS, COLUMNS, EXECUTED, LISTED, PAGES, ROOT, code_cells, figure_of, plain, prose

COUNTED = "cells|genes|types|labels|counts|epochs|steps|seconds|minutes|draws|molecules|nats|points|zeros|seeds|classes"
NUMBER = re.compile(
    r"\d+\.\d+"  # a decimal
    r"|\d+\s?(?:%|percent)"
    r"|\b\d{1,3}(?:,\d{3})+\b"
    r"|\b(?!(?:19|20)\d\d\b)\d{4,}\b"  # four digits and more, years left out
    rf"|\b\d+ (?:\w+ )?(?:{COUNTED})\b"
)
NEXT_SENTENCE = re.compile(
    r"(?<!et al)(?<!i\.e)(?<!e\.g)(?<!\bvs)(?<!\bcf)(?<!Fig)(?<!\b[A-Z])[.!?][\"”)*]*\s+(?=[A-Z“\"(*\[])"
)
LONGEST_CELL = 12


def results_typed_in(line: str) -> list[str]:
    """Return numbers that a cell should say; a sentence that cites somebody reports that somebody's numbers."""
    text = re.sub(r"\bPython (≥ )?\d\.\d+", "Python", plain(line))
    return [] if re.search(r"\{cite|https?://", line) else NUMBER.findall(text)


def starts_another_sentence(line: str) -> bool:
    """Tell whether a second sentence begins on the line; rows of tables are free."""
    return not line.lstrip().startswith("|") and bool(NEXT_SENTENCE.search(plain(line)))


def length(source: str) -> int:
    """Count the lines of a code cell that are neither imports, comments, magics nor blank."""
    source = "\n".join("" if line.startswith(("%", "!")) else line for line in source.splitlines())
    imports = {
        number
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Import | ast.ImportFrom)
        for number in range(node.lineno, (node.end_lineno or node.lineno) + 1)
    }
    return sum(
        bool(line.strip()) and not line.lstrip().startswith("#") and number not in imports
        for number, line in enumerate(source.splitlines(), 1)
    )


def defined_in(source: str) -> set[str]:
    """Return the names of functions and classes that a piece of code defines at its top level."""
    source = "\n".join("" if line.startswith(("%", "!")) else line for line in source.splitlines())
    return {
        node.name
        for node in ast.parse(source).body
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
    }


pages = pytest.mark.parametrize("page", PAGES, ids=lambda path: path.stem)
chapters = pytest.mark.parametrize("page", CHAPTERS, ids=lambda path: path.stem)
executed = pytest.mark.parametrize("page", EXECUTED, ids=lambda path: path.stem)


def test_every_page_of_the_table_of_contents_is_there():
    assert [page.name for page in LISTED if page not in PAGES] == []


@pages
def test_one_title_under_a_label_of_the_pages_name(page):
    lines = page.read_text(encoding="utf-8").splitlines()
    titles = [number for number, line in prose("\n".join(lines)) if line.startswith("# ")]
    assert len(titles) == 1
    assert lines[titles[0] - 2] == f"({re.sub('^[0-9]+_', '', page.stem)})="


@pages
def test_no_result_is_typed_in_prose(page):
    typed = {
        number: found for number, line in prose(page.read_text(encoding="utf-8")) if (found := results_typed_in(line))
    }
    assert typed == {}, "line: number; let a cell say it, or cite whose it is"


@pages
def test_a_line_holds_one_sentence(page):
    lines = {number: line for number, line in prose(page.read_text(encoding="utf-8")) if starts_another_sentence(line)}
    assert lines == {}


@pages
def test_no_page_speaks_of_itself_or_of_unfinished_work(page):
    words = " ".join(line for _, line in prose(page.read_text(encoding="utf-8")))
    assert not re.search(r"[Ii]n this (notebook|chapter|tutorial),? we|TODO|FIXME|[Ll]orem ipsum|coming soon", words)
    assert not re.search(r"\b(un)?labeled\b", words), "the book spells labeled and unlabeled"


@pages
def test_every_picture_in_the_text_says_what_it_shows(page):
    assert [alt for alt in re.findall(r"!\[([^\]]*)\]\(", page.read_text(encoding="utf-8")) if len(alt) < 20] == []


@chapters
def test_a_chapter_opens_with_its_question(page):
    text = page.read_text(encoding="utf-8")
    box = re.search(r":::\{admonition\} Question\n:class: question\n(.*?)\n:::", text, re.DOTALL)
    assert box, "the box 'Question' of class question is missing"
    assert "**You will have**" in box[1]
    assert "**You need**" in box[1]
    assert text.index(":::{admonition} Question") < text.index("```{code-cell}")


@chapters
def test_a_chapter_closes_in_short_with_exercises_and_a_way_on(page):
    headings = [line for _, line in prose(page.read_text(encoding="utf-8")) if line.startswith("## ")]
    assert headings[-3:] == ["## In short", "## Exercises", "## Where next"]


@chapters
def test_in_short_is_a_few_sentences_and_where_next_leads_somewhere(page):
    lines = [line for _, line in prose(page.read_text(encoding="utf-8"))]
    at = lines.index
    assert 2 <= at("## Exercises") - at("## In short") - 1 <= 5
    assert re.search(r"\]\([\w/.#-]+\)", " ".join(lines[at("## Where next") :]))


@chapters
def test_each_exercise_has_a_hidden_solution(page):
    text = page.read_text(encoding="utf-8")
    asked = re.findall(r"\{exercise(?:-start)?\}[^\n]*\n:label: (\S+)", text)
    solved = re.findall(r"\{solution(?:-start)?\} (\S+)\n:class: dropdown\n", text)
    assert len(asked) >= 3
    assert asked == solved
    assert all(label.startswith(f"ex-{re.sub('^[0-9]+_', '', page.stem)}-") for label in asked)


@chapters
def test_a_chapter_checks_a_claim_and_shows_a_picture(page):
    cells = code_cells(page)
    assert any("assert" in cell.source for cell in cells)
    assert any(figure_of(cell) for cell in cells)


@executed
def test_captions_state_a_finding_and_alt_texts_say_what_is_seen(page):
    for figure in filter(None, map(figure_of, code_cells(page))):
        assert figure["name"].startswith("fig-")
        assert len(figure["alt"]) >= 40
        assert figure["caption"].strip().endswith(".")
        assert figure["alt"].strip() != figure["caption"].strip()
        assert not [line for line in figure["caption"].splitlines() if starts_another_sentence(line)]
        assert not results_typed_in(figure["caption"]), "a caption is the same on every data set"


@executed
def test_cells_are_short(page):
    long = {cell.source.splitlines()[0]: length(cell.source) for cell in code_cells(page)}
    assert {first: lines for first, lines in long.items() if lines > LONGEST_CELL} == {}


@executed
def test_code_is_no_wider_than_a_page(page):
    assert [line for cell in code_cells(page) for line in cell.source.splitlines() if len(line) > COLUMNS] == []


@executed
def test_a_chapter_defines_nothing_that_the_package_defines(page):
    package = set[str]().union(
        *(defined_in(module.read_text(encoding="utf-8")) for module in (ROOT / "scanvi_tutorial").rglob("*.py"))
    )
    assert package & set[str]().union(*(defined_in(cell.source) for cell in code_cells(page))) == set()


@executed
def test_no_cell_asks_in_which_profile_it_runs(page):
    for cell in code_cells(page):
        assert not re.search(r"smoke|environ|getenv", cell.source, re.IGNORECASE)


@executed
def test_no_cell_is_allowed_to_fail_unseen(page):
    for cell in code_cells(page):
        assert not {"raises-exception", "skip-execution"} & set(cell.metadata.get("tags", []))


def test_names_of_figures_equations_and_exercises_are_unique_in_the_book():
    text = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)
    named = r"^ *(?:name: *(fig-\S+)|:(?:label|name): *(\S+))|\$\$ \((\S+)\)|^\((\S+)\)=$"
    names = re.findall(named, text, re.MULTILINE)
    assert [name for name, times in Counter("".join(name) for name in names).items() if times > 1] == []


def test_every_citation_has_its_reference_and_every_reference_is_cited():
    text = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)
    cited = {key.strip() for keys in re.findall(r"\{cite:?\w*\}`([^`]+)`", text) for key in keys.split(",")}
    library = (ROOT / "book" / "references.bib").read_text(encoding="utf-8")
    assert set(re.findall(r"^@\w+\{(\w+),", library, re.MULTILINE)) == cited


def test_every_reference_leads_to_its_source():
    library = (ROOT / "book" / "references.bib").read_text(encoding="utf-8")
    entries = re.split(r"^@", library, flags=re.MULTILINE)[1:]
    assert [entry.splitlines()[0] for entry in entries if not re.search(r"^  (doi|url) +=", entry, re.MULTILINE)] == []


@pytest.mark.parametrize(
    "line",
    [
        "Accuracy reaches 0.81 here.",
        "About 12% of the counts are zero.",
        "It knows 95 percent.",
        "The matrix has 1,200 columns.",
        "There are 21932 columns.",
        "We keep 200 cells.",
        "- It took 80 long epochs.",
    ],
)
def test_the_rule_finds_a_typed_result(line):
    assert results_typed_in(line)


@pytest.mark.parametrize(
    "line",
    [
        "Ten cells of each type get a label.",
        "Figure 6 of the paper of 2021 shows it.",
        "It takes Python 3.11 and nothing else.",
        "The tutorial used 20,000 cells {cite:p}`bingham2019`.",
        "See [the paper](https://doi.org/10.1038/ncomms14049).",
        "The rate is $0.5$ and `n=2_000` is the default of 10x.",
        "[Fit it](05_training.md#why-100) and see.",
    ],
)
def test_the_rule_leaves_other_numbers_alone(line):
    assert not results_typed_in(line)


@pytest.mark.parametrize(
    ("line", "two"),
    [
        ("One sentence. Another one.", True),
        ("Is it so? It is.", True),
        ("It holds (see above). The rest follows.", True),
        ("1. A point in a list.", False),
        ("Genes, e.g. Those of B cells, and Xu et al. say so.", False),
        ("Read $p(y). X$ and `a. B` aloud.", False),
        ("| One. Two. | Three. |", False),
    ],
)
def test_the_rule_tells_sentences_apart(line, two):
    assert starts_another_sentence(line) is two


def test_prose_leaves_out_code_maths_headers_and_options():
    text = "---\nkey: 0.1\n---\n# T\n```{code-cell} ipython3\n:tags: [x]\n0.2\n```\n$$\n0.3\n$$ (eq-a)\n"
    text += ":::{admonition} Note\n:class: tip\nread me\n```python\n0.4\n```\n:::\n$$ 0.5 $$\nlast"
    assert [line for _, line in prose(text)] == ["# T", "Note", "read me", "last"]


def test_imports_and_comments_do_not_lengthen_a_cell():
    assert length("%config x\nimport a\nfrom b import (\n    c,\n    d,\n)\n\n# why\ne = f(\n    g\n)\n") == 3
