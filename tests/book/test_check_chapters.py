"""`make lint` notices what in a chapter would break a build or mislead a reader."""

import json
import os
import shutil
from pathlib import Path

import pytest
from chapters import ROOT
from check_chapters import problems_of, problems_of_pair

GOOD = """---
kernelspec: {display_name: Python 3, language: python, name: python3}
---

(counts)=
# Counts

Ten cells of each type get a label.
Others report 95% {cite:p}`bingham2019`.
The rate is $0.5$, `n=2_000` is a default, and Python 3.11 is enough.

```{code-cell} ipython3
---
mystnb:
  figure: {name: fig-counts, caption: Most counts are zero.}
  image: {alt: A histogram that falls from zero to the right over ten bars.}
---
plot(counts)
```

```{exercise}
:label: ex-counts-why

Why?
```

```{solution} ex-counts-why
:class: dropdown

Because.
```
"""


def test_a_chapter_in_order_has_no_problems():
    assert list(problems_of("01_counts", GOOD)) == []


@pytest.mark.parametrize(
    ("before", "after", "problem"),
    [
        ("(counts)=\n", "", "does not stand above the title"),
        ("Ten cells", "![a map](map.png) Ten cells", "a picture says too little"),
        ("{solution} ex-counts-why", "{solution} ex-counts-when", "ex-counts-when"),
        ("kernelspec:", "kernel:", "never executed"),
        ("Ten cells", "Accuracy reaches 0.81: ten cells", "typed in prose, where a cell should say it: 0.81"),
        ("The rate", "The 1,200 columns are 12% of the rate", "typed in prose, where a cell should say it: 12%"),
        ("fig-counts", "counts", "a figure needs a name"),
        ("A histogram that falls from zero to the right over ten bars.", "A figure.", "a figure needs a name"),
        ("plot(counts)", "if run.smoke: plot(counts)", "in which profile it runs"),
        ("---\nplot", "tags: [raises-exception]\n---\nplot", "may fail unseen"),
        ("plot(counts)", f"plot({'counts, ' * 20})", "wider than 96 characters"),
    ],
)
def test_what_is_out_of_order_is_told(before, after, problem):
    assert before in GOOD
    found = list(problems_of("01_counts", GOOD.replace(before, after)))
    assert any(problem in text for text in found), found


def paired(folder, change):
    """Copy a chapter and its notebook, change the notebook as JSON, and return what is wrong with the pair."""
    page = ROOT / "book" / "01_data.md"
    copy = Path(shutil.copy(page, folder))
    notebook = json.loads(page.with_suffix(".ipynb").read_text(encoding="utf-8"))
    change(notebook["cells"])
    copy.with_suffix(".ipynb").write_text(json.dumps(notebook), encoding="utf-8")
    os.utime(copy, (0, 0))  # as a checkout may leave it: older than the notebook
    return " ".join(problems_of_pair(copy))


def reworded(cells):
    cells[0]["source"][-1] += "One sentence more."


def recoded(cells):
    next(cell for cell in cells if cell["cell_type"] == "code")["source"].append("\n1 + 1")


def retagged(cells):
    next(cell for cell in cells if cell["cell_type"] == "code")["metadata"]["tags"] = ["hide-input"]


def run(cells):
    next(cell for cell in cells if cell["cell_type"] == "code")["execution_count"] = 1


@pytest.mark.parametrize("change", [reworded, recoded, retagged, list.pop, run])
def test_a_notebook_that_differs_from_its_chapter_is_told(change, tmp_path):
    assert "make pairs" in paired(tmp_path, change)


def test_a_pair_in_step_passes_whichever_file_is_newer(tmp_path):
    assert paired(tmp_path, lambda cells: None) == ""
