"""The book's outputs are never stale, its progress stays out of the pages, and a bad page is noticed."""

import os
import shutil
from types import SimpleNamespace

import book_ext
import check_book
import check_settings
import nbformat
import pytest
from chapters import LISTED, ROOT
from nbclient import NotebookClient

CHAPTER = """---
jupytext:
  text_representation: {extension: .md, format_name: myst}
---
# A chapter

```{code-cell} ipython3
%precision 3
import scanvi_tutorial as st
from scanvi_tutorial.teaching import show_source

adata = st.load("simulated")
st.plotting.umap(adata)
st.SCANVI.from_anndata(adata).train()
show_source(st.fit)
```
"""
READS = CHAPTER.replace("%precision 3", 'rows = "../benchmarks/results/grid.json"')


@pytest.fixture
def checkout(tmp_path):
    """Return a small copy of what outputs depend on."""
    for folder in ("scanvi_tutorial", "benchmarks"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("requirements.txt", "pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("name", "change", "runs"),
    [
        ("scanvi_tutorial/data/pbmc.py", "CHANGED = 1\n", True),
        ("scanvi_tutorial/plotting/embedding.py", "CHANGED = 1\n", True),
        ("scanvi_tutorial/plotting/book.mplstyle", "# changed\n", True),
        ("scanvi_tutorial/training/loop.py", "# a comment of a module that is listed\n", True),
        ("requirements.txt", "# changed\n", True),
        ("scanvi_tutorial/data/pbmc.py", "# a comment\n", False),
        ("scanvi_tutorial/plotting/fits.py", "CHANGED = 1\n", False),
        ("scanvi_tutorial/report/__init__.py", "CHANGED = 1\n", False),
        ("scanvi_tutorial/cli/__init__.py", "CHANGED = 1\n", False),
        ("benchmarks/results/grid.json", " ", False),
        ("README.md", "changed\n", False),
    ],
)
def test_a_chapter_is_run_anew_for_what_it_uses_and_for_nothing_else(checkout, name, change, runs):
    before = book_ext.key_of(CHAPTER, {}, checkout)
    with (checkout / name).open("a", encoding="utf-8") as file:
        file.write(change)
    assert (book_ext.key_of(CHAPTER, {}, checkout) != before) is runs


def test_a_chapter_that_reads_results_is_run_anew_for_them(checkout):
    before = book_ext.key_of(READS, {}, checkout)
    (checkout / "benchmarks" / "results" / "grid.json").write_text("{}", encoding="utf-8")
    assert book_ext.key_of(READS, {}, checkout) != before


@pytest.mark.parametrize("name", ["SCANVI_SMOKE", "CI", "SCANVI_DATASET"])
def test_each_profile_and_data_set_has_outputs_of_its_own(name):
    assert len({book_ext.key_of(CHAPTER, environ) for environ in ({}, {name: "1"}, {name: "2"})}) == 3


def test_where_the_data_lie_does_not_matter():
    assert book_ext.key_of(CHAPTER, {"SCANVI_DATA_DIR": "/somewhere"}) == book_ext.key_of(CHAPTER, {})


def test_each_cell_reports_to_the_terminal_and_leaves_no_trace_in_the_notebook():
    cells = [nbformat.v4.new_code_cell(source) for source in ("%precision 3\nx = 1 + 1", "", "# why\nprint(x)")]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell("# Title"), *cells])
    lines: list[str] = []
    NotebookClient(notebook, **book_ext.reporting(notebook, "01_data", lines.append)).execute()
    assert [line.split("s  ")[1] for line in lines] == ["x = 1 + 1\n", "print(x)\n"]
    assert lines[1].startswith("01_data [2/2] ")
    assert notebook.cells[-1].outputs == [{"output_type": "stream", "name": "stdout", "text": "2\n"}]


def test_configuring_the_build_silences_bars(tmp_path, monkeypatch):
    monkeypatch.delenv("TQDM_DISABLE", raising=False)
    monkeypatch.setenv("MPLBACKEND", "Agg")
    config = SimpleNamespace()
    book_ext.configure(SimpleNamespace(outdir=str(tmp_path / "html")), config)
    assert os.environ["TQDM_DISABLE"] == "1"
    assert "MPLBACKEND" not in os.environ, "figures are drawn into the page"


def test_mathjax_is_in_the_environment_and_its_part_is_enough(tmp_path):
    app = SimpleNamespace(builder=SimpleNamespace(format="html"), outdir=str(tmp_path))
    book_ext.copy_mathjax(app, None)
    mathjax = tmp_path / "_static" / "mathjax"
    assert (mathjax / "tex-chtml.js").stat().st_size > 1_000_000
    assert list(mathjax.glob("output/chtml/fonts/woff-v2/*.woff"))


ARTICLE = f"<article><p>{'All is well. ' * 30}</p>%s</article>"


def output(kind: str, text: str) -> str:
    return f'<div class="cell_output"><div class="output {kind}"><pre>{text}</pre></div></div>'


@pytest.mark.parametrize(
    ("html", "problem"),
    [
        ("<article></article>", "empty"),
        ("<p>No article.</p>", "empty"),
        (ARTICLE % '<img src="a.png">', "alternative text"),
        (ARTICLE % f'<img src="a.png" alt="../_images/{"0" * 64}.png">', "alternative text"),
        (ARTICLE % output("stream", "line\n" * 21), "more than 20 lines"),
        (ARTICLE % output("text_plain", "line\n" * 21), "more than 20 lines"),
        (ARTICLE % output("traceback", "ValueError"), "traceback"),
        (ARTICLE % output("stream", "UserWarning: beware"), "warning"),
        (ARTICLE % output("stream", f"saved to {ROOT}/x"), "path of this machine"),
        (ARTICLE % "" + '<script src="https://cdn.example.org/a.js"></script>', "another host"),
        (ARTICLE % "" + '<link rel="stylesheet" href="//cdn.example.org/a.css">', "another host"),
    ],
)
def test_a_bad_page_is_noticed(html, problem):
    assert [found for found in check_book.problems_of("page", html) if problem in found]


@pytest.mark.parametrize(
    "html",
    [
        ARTICLE % '<img src="a.png" alt="A histogram with one peak.">',
        ARTICLE % output("stream", "line\n" * 20),
        ARTICLE
        % (
            '<div class="cell_output"><div class="output text_markdown"><div class="highlight-python"><pre>'
            + "warnings.warn(UserWarning)\n" * 30
            + "</pre></div></div></div>"
        ),
        ARTICLE % '<a href="https://doi.org/10.1038/ncomms14049">a paper</a>',
    ],
)
def test_a_good_page_passes(html):
    assert check_book.problems_of("page", html) == []


def test_a_missing_page_fails_the_check(tmp_path, capsys):
    for page in LISTED[:-1]:
        file = (tmp_path / page.relative_to(ROOT)).with_suffix(".html")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(ARTICLE % "", encoding="utf-8")
    assert check_book.main(tmp_path) == 1
    assert capsys.readouterr().out == f"PROBLEM book/{LISTED[-1].stem}: the page is missing\n"
    (tmp_path / LISTED[-1].relative_to(ROOT)).with_suffix(".html").write_text(ARTICLE % "", encoding="utf-8")
    assert check_book.main(tmp_path) == 0


@pytest.mark.parametrize(("name", "value"), [("SCANVI_DATASET", "pbmc86k"), ("SCANVI_SMOKE", "perhaps")])
def test_a_setting_that_cannot_be_used_ends_the_build_in_one_paragraph(name, value, monkeypatch, capsys):
    monkeypatch.setenv("SCANVI_SMOKE", "0")
    monkeypatch.setenv(name, value)
    with pytest.raises(SystemExit) as ended:
        check_settings.main()
    assert capsys.readouterr().out == ""
    assert len(ended.value.code.splitlines()) == 1
    assert name in ended.value.code
    assert value in ended.value.code
