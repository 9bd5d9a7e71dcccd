"""The page of the report: sections, charts and the library that draws them in one file that loads nothing."""

import base64
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from orchestrator.commands.report.data import Report

_FOLDER = Path(__file__).parent
_TEMPLATES = Environment(
    loader=FileSystemLoader(_FOLDER),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """A part of the page.

    `anchor` is its element id and the prefix of its CSS classes and JavaScript names. `css` and `js` go into the page
    once each; neither loads anything.
    """

    anchor: str
    title: str
    html: Markup
    css: Markup | None = None
    js: Markup | None = None


def render(template: str, **values: Any) -> Markup:
    """Return a template of this folder filled with `values`; every text that is not `Markup` is escaped."""
    return Markup(_TEMPLATES.get_template(template).render(values))


def asset(name: str) -> Markup:
    """Return a style sheet or a script of this folder."""
    return Markup((_FOLDER / name).read_text(encoding="utf-8"))


def page_html(report: Report, sections: Sequence[Section], specs: Mapping[str, Any]) -> str:
    """Return the whole document. `specs`: Vega-Lite specs by the name of their figure."""
    scripts = [_bundle(), asset("page.js"), *(section.js for section in sections if section.js)]
    return render(
        "page.html",
        report=report,
        sections=sections,
        policy=_policy(scripts),
        styles=[asset("page.css"), *(section.css for section in sections if section.css)],
        specs=script_json(specs),
        scripts=scripts,
    )


def script_json(value: object) -> Markup:
    """Return ASCII JSON that may stand in a script element, whatever strings it holds."""
    return Markup(json.dumps(value, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c"))


def _policy(scripts: Iterable[str]) -> str:
    """Return a content policy: load nothing, run these scripts only. Vega compiles expressions, so unsafe-eval."""
    digests = (base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts)
    hashes = " ".join(f"'sha256-{digest}'" for digest in digests)
    return (
        f"default-src 'none'; script-src {hashes} 'unsafe-eval'; style-src 'unsafe-inline'; img-src data: blob:; "
        f"base-uri 'none'; form-action 'none'"
    )


@cache
def _bundle() -> Markup:
    """Return Vega, Vega-Lite and vega-embed as one script."""
    import vl_convert

    bundle = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;")
    return Markup(bundle.replace("</script", "<\\/script").replace("\r\n", "\n"))
