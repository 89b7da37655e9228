"""How headstart's pages are drawn: jinja2 with autoescape on, and the filters that all of them share."""

from __future__ import annotations

import jinja2

from headstart.reporting import words


def page_environment() -> jinja2.Environment:
    """Where the templates lie and what they may call."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("headstart.reporting", "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(clean=words.clean, points=words.points, duration=words.duration)
    return environment
