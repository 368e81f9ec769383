"""Chromium for tests: no network, one process for all of a file's tests."""

import os
import shutil
from contextlib import contextmanager
from pathlib import Path

import pytest

FLAGS = (
    "--no-sandbox",  # root has none
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
NAMES = ("chromium", "chromium-browser", "google-chrome")
AXE = Path(__file__).parents[3] / ".venv/axe/node_modules/axe-core/axe.min.js"


def skip(what):
    """Skip a test, aloud; fail it where nothing may be missing."""
    if os.environ.get("BROWSER_TESTS") == "required":
        pytest.fail(what)
    pytest.skip(what)


@contextmanager
def chromium():
    """Start Debian's Chromium."""
    program = next(filter(None, map(shutil.which, NAMES)), None)
    if program is None:
        skip("there is no Chromium: apt-get install chromium")
    try:
        from playwright.sync_api import sync_playwright
    except ModuleNotFoundError:
        skip("there is no Playwright: pip install -e .[dev]")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=FLAGS)
        yield browser
        browser.close()


def axe():
    """Return the source of axe-core."""
    if not AXE.is_file():
        skip(f"there is no {AXE.name}: `make test` installs it by npm")
    return AXE.read_text()
