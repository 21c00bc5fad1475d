"""Write requirements.txt anew: `make pins`.

pip says what it would install for the oldest Python that the package supports, so that the pins hold on every later
one; nothing is installed. HELD names what must not move, and why.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

from environment import PINS, ROOT

HEAD = "# Made by `make pins`: what pip takes for Python {oldest}.0 and all extras of pyproject.toml; three are held."
HELD = {
    "jupyter-book": ("1.0.4.post1", "2.x is another program and does not read _config.yml"),
    "sphinx-book-theme": ("1.1.4", "1.3 and 1.4 show a second search field and a side bar that cannot be closed"),
    "torch": ("2.13.0", "written without +cpu, so that every machine finds its own build"),
}


def asked_for(project: dict) -> list[str]:
    """Return the requirements of the package and of its extras, which name the package itself where they share."""
    extras = (item for extra in project["optional-dependencies"].values() for item in extra)
    return [item for item in (*project["dependencies"], *extras) if not item.startswith(project["name"])]


def resolve(requirements: list[str], oldest: str) -> dict[str, str]:
    """Return name and version of all that pip would install for Python `oldest`.0."""
    command = [sys.executable, "-m", "pip", "install", "--dry-run", "--ignore-installed", "--quiet"]
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        elsewhere = ["--target", folder, "--python-version", oldest, "--only-binary", ":all:", "--report", str(report)]
        subprocess.run([*command, *elsewhere, *requirements], check=True)
        found = json.loads(report.read_text(encoding="utf-8"))["install"]
    return {item["metadata"]["name"]: item["metadata"]["version"].split("+")[0] for item in found}  # 2.13.0+cpu


def main() -> None:
    """Write the file."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    oldest = re.search(r"[\d.]+", project["requires-python"])[0]
    print(f"Asking pip what it takes for Python {oldest}.0; this can take some minutes.", flush=True)
    versions = resolve([*asked_for(project), *(f"{name}=={version}" for name, (version, _) in HELD.items())], oldest)
    pins = [
        f"{name}=={version}" + (f"  # {HELD[name.lower()][1]}" if name.lower() in HELD else "")
        for name, version in sorted(versions.items(), key=lambda pin: pin[0].lower())
    ]
    PINS.write_text("\n".join([HEAD.format(oldest=oldest), *pins, "-e .", ""]), encoding="utf-8")
    print(f"{PINS.name} holds {len(pins)} pins.")


if __name__ == "__main__":
    main()
