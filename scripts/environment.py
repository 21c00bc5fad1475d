"""Make `.venv` from requirements.txt, or another folder from other pins: `environment.py [folder pins]`.

Needs Python alone. pip names some two hundred packages on the way; here they share one line that says how far it is.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import time
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / ".venv"
PINS = ROOT / "requirements.txt"


def create(folder: Path) -> Path:
    """Make an empty environment in `folder` and return its interpreter."""
    if folder.exists():
        shutil.rmtree(folder)
    try:
        venv.create(folder, with_pip=True)
    except subprocess.CalledProcessError:
        sys.exit(
            f"{sys.executable} cannot make an environment with pip in it, so {folder.name} was not made. "
            "On Debian and Ubuntu this needs the package python3-venv: sudo apt install python3-venv"
        )
    return folder / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")


def install(python: Path, *what: str, total: int | None = None) -> None:
    """Let pip install `what` into the environment of `python`, with one line of progress."""
    command = [str(python), "-m", "pip", "install", "--disable-pip-version-check", "--no-input", *what]
    log: list[str] = []
    with subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as pip:
        assert pip.stdout is not None
        seen = 0
        for line in pip.stdout:
            log.append(line)
            if named := re.match(r"\s*(?:Collecting|Processing|Obtaining) (\S+)", line):
                seen += 1
                report(f"{seen} of {total} packages: {named[1]}" if total else f"{seen} packages: {named[1]}", seen)
            elif re.match(r"\s*(Downloading|Installing collected|Building)", line):
                report(line.strip()[:100], seen)
    if pip.returncode:
        sys.exit(
            f"\n{''.join(log[-15:])}\npip could not install the packages (the end of its output is above). "
            "Is the network there? Once it is, the same command starts anew."
        )


def report(text: str, seen: int) -> None:
    """Show `text` in place on a terminal, and every twentieth package in a log."""
    if sys.stdout.isatty():
        print(f"\r\033[K  {text[: shutil.get_terminal_size().columns - 4]}", end="", flush=True)
    elif seen % 20 == 0 and (" of " in text or " packages: " in text):
        print(f"  {text}", flush=True)


def main(folder: Path = FOLDER, pins: Path = PINS) -> None:
    """Make the environment `folder` and install the pins."""
    begun = time.monotonic()
    print(f"Making {folder.name} with Python {sys.version.split()[0]} and the pins of {pins.name} …", flush=True)
    total = sum(bool(re.match(r"[A-Za-z0-9]", line)) for line in pins.read_text(encoding="utf-8").splitlines())
    install(create(folder), "-r", str(pins), total=total)
    print(f"{chr(13) if sys.stdout.isatty() else ''}  {folder.name} is ready ({time.monotonic() - begun:.0f} s).")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
