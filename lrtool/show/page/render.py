"""From a template to one HTML file that asks for nothing: styles and script are inside it.

The policy in its head allows only those two, by their digests, so that nothing else is loaded or
run, whatever the texts of a report hold. They are escaped besides.
"""

from __future__ import annotations

import base64
import hashlib
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from lrtool.config.spelling import number
from lrtool.show import words
from lrtool.show.page.axis import WIDTHS
from lrtool.show.terminal.printable import printable, short

if TYPE_CHECKING:
    from collections.abc import Iterable

MOST_BYTES = 300_000  # of a page
POINTS = (240, 120, 60, 30, 15)  # of a plot's series: fewer where the page would be too large
METRIC_DIGITS = 6  # of a metric's value, as in the tables of a terminal
FOLDER = Path(__file__).parent / "templates"


def render(template: str, **values: Any) -> Markup:
    """Return a template of `templates/` with its values: texts are escaped, and long ones cut.

    A page extends `base.html`.

    Raises:
        jinja2.TemplateError: the template needs a value that is not there.
    """
    return Markup(_environment().get_template(template).render(values))  # noqa: S704  (escaped)


def first_that_fits(pages: Iterable[str]) -> str:
    """Return the first page of at most `MOST_BYTES`, or the last one; others are not drawn."""
    page = ""
    for page in pages:
        if room(page) >= 0:
            break
    return page


def room(page: str) -> int:
    """Return how many bytes a page may still grow; below zero, it is too large."""
    return MOST_BYTES - len(page.encode())


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(FOLDER),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: short(printable(value)) if type(value) is str else value,
    )
    style = Markup(environment.get_template("style.css").render(widths=WIDTHS[1:]))  # noqa: S704
    script = Markup((FOLDER / "script.js").read_text(encoding="utf-8"))  # noqa: S704
    environment.globals.update(style=style, script=script, policy=_policy(style, script))
    environment.filters.update(number=number, rate=words.rate, loss=words.value)
    return environment


def _policy(style: str, script: str) -> str:
    """Return the content security policy of a page with these two."""
    return (
        f"default-src 'none'; style-src {_digest(style)}; script-src {_digest(script)}; "
        "img-src data:; base-uri 'none'; form-action 'none'"
    )


def _digest(text: str) -> str:
    digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    return f"'sha256-{digest}'"
