"""The table of run times has a row for each page, and says once with which versions and hardware pages were made."""

import json

import book_runs

NOTE = {
    "date": "2026-11-27T01:02:03+00:00",
    "seconds": 61.4,
    "profile": "full",
    "dataset": "pbmc68k",
    "python": "3.11.7",
    "versions": {"torch": "2.13.0", "numpy": "2.4.6"},
    "hardware": {"processor": "A", "cores": 2, "memory_gib": 23.5, "threads": 1, "system": "Linux x86_64"},
}


def test_pages_that_were_made_alike_share_a_setting():
    other = NOTE | {"python": "3.12.1", "seconds": 5.0}
    lines = book_runs.table_of([("book/a", NOTE), ("book/b", other), ("book/c", NOTE), ("book/d", None)]).splitlines()
    assert lines[2] == "| [](/book/a) | 2026\u201111\u201127 | 61 | full | `pbmc68k` | 1 |"
    assert [line.split("|")[-2].strip() for line in lines[2:6]] == ["1", "2", "1", ""]
    assert lines[7].startswith("1. Python 3.11.7, torch 2.13.0; A, 2 cores, 24 GiB")
    assert lines[8].startswith("2. Python 3.12.1")


def test_a_run_is_noted_with_its_profile_and_seconds(tmp_path, monkeypatch):
    monkeypatch.setenv("SCANVI_SMOKE", "1")
    book_runs.note_run(tmp_path, 1.23)
    note = json.loads((tmp_path / book_runs.NOTE).read_text(encoding="utf-8"))
    assert (note["profile"], note["dataset"], note["seconds"]) == ("smoke", "simulated", 1.2)
    assert book_runs.table_of([("book/a", note)])
