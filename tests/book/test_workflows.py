"""What GitHub and Read the Docs run is valid, asks for few rights, and runs what the Makefile says."""

import re
import subprocess
import sys

import pytest
import yaml
from chapters import ROOT

WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
TEXTS = {path.stem: path.read_text(encoding="utf-8") for path in WORKFLOWS}
PARSED = {name: yaml.safe_load(text) for name, text in TEXTS.items()}
JOBS = [pytest.param(job, id=f"{name}-{key}") for name, flow in PARSED.items() for key, job in flow["jobs"].items()]
PYTHONS = ["3.11", "3.12", "3.13"]


@pytest.mark.parametrize(
    ("schema", "files"),
    [
        ("github-workflows", WORKFLOWS),
        ("dependabot", [ROOT / ".github" / "dependabot.yml"]),
        ("readthedocs", [ROOT / ".readthedocs.yaml"]),
    ],
)
def test_files_follow_the_schemas_of_their_services(schema, files):
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", f"vendor.{schema}", *map(str, files)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_there_are_three_workflows():
    assert set(TEXTS) == {"test", "site", "weekly"}


@pytest.mark.parametrize("job", JOBS)
def test_every_job_ends_by_itself_and_keeps_no_password(job):
    assert job["timeout-minutes"] <= 120
    for step in job["steps"]:
        if step.get("uses", "").startswith("actions/checkout@"):
            assert step["with"]["persist-credentials"] is False


def test_rights_are_given_to_jobs_alone_and_only_where_needed():
    for flow in PARSED.values():
        assert flow["permissions"] == {"contents": "read"}
    jobs = {(name, key): job for name, flow in PARSED.items() for key, job in flow["jobs"].items()}
    given = {key: job["permissions"] for key, job in jobs.items() if "permissions" in job}
    assert given == {
        ("site", "publish"): {"pages": "write", "id-token": "write"},
        ("weekly", "report"): {"issues": "write"},
    }


def test_every_action_is_of_a_known_owner_and_a_major_version():
    used = {use for text in TEXTS.values() for use in re.findall(r"uses: (\S+)", text)}
    assert [use for use in used if not re.fullmatch(r"(actions|astral-sh)/[\w-]+@v\d+", use)] == []
    majors = {}
    for use in used:
        name, version = use.split("@")
        assert majors.setdefault(name, version) == version, "one version everywhere"


def test_pull_requests_are_tested_on_every_python_and_with_the_oldest_dependencies():
    assert "pull_request" in PARSED["test"][True]  # YAML reads the key `on` as true
    matrix = PARSED["test"]["jobs"]["dependencies"]["strategy"]["matrix"]
    assert matrix["python"] == PYTHONS
    assert {"python": "3.11", "resolution": "lowest-direct"} in matrix["include"]


def test_pull_requests_run_what_this_repository_calls_ci():
    assert "run: .ci/run" in TEXTS["test"]


def test_only_main_is_published_in_the_full_profile():
    assert PARSED["site"][True]["push"] == {"branches": ["main"]}
    assert "pull_request" not in PARSED["site"][True]
    assert PARSED["site"]["env"]["SCANVI_SMOKE"] == "0"


def test_cached_outputs_are_keyed_on_package_results_pins_chapters_profile_and_data_set():
    steps = PARSED["site"]["jobs"]["build"]["steps"]
    cache = next(step["with"] for step in steps if step.get("uses", "").startswith("actions/cache@"))
    on = ["scanvi_tutorial/**", "benchmarks/results/**", "requirements.txt", "env.SCANVI_SMOKE", "env.SCANVI_DATASET"]
    for part in on:
        assert part in cache["key"]
        assert part in cache["restore-keys"], "an old key is taken only for the same package, profile and data"
    assert "book/*.md" in cache["key"]


def test_commands_of_the_workflows_are_targets_of_the_makefile():
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    asked = {target for text in TEXTS.values() for target in re.findall(r"run: make ([a-z]+)", text)}
    assert asked == {"book", "browser", "links"}
    assert asked <= targets


def test_the_weekly_run_opens_an_issue_when_something_breaks():
    report = PARSED["weekly"]["jobs"]["report"]
    assert report["if"] == "failure()"
    assert set(report["needs"]) == set(PARSED["weekly"]["jobs"]) - {"report"}
    assert "gh issue create" in report["steps"][0]["run"]


def test_no_untrusted_text_is_pasted_into_a_shell():
    for name, flow in PARSED.items():
        for job in flow["jobs"].values():
            for step in job["steps"]:
                assert not re.search(r"\$\{\{\s*github\.(event|head_ref)", step.get("run", "")), name


def test_continuous_integration_looks_at_the_site_that_it_built():
    steps = re.findall(r"^step (.+?)(?: #.*)?$", (ROOT / ".ci" / "run").read_text(encoding="utf-8"), re.MULTILINE)
    assert steps == ["install_browser", "make lint", "make test", "make slow", "make book", "make browser"]
