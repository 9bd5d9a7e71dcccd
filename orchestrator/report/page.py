"""One page that holds everything: sections, charts, the library that draws them. It never loads anything."""

import base64
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from orchestrator.report.markup import Markup, text
from orchestrator.report.section import Section

_HERE = Path(__file__).parent
_TO_WINDOW = "window.vegaEmbed = vegaEmbed;"


def page_html(title: str, key: Markup, source: str, sections: Sequence[Section], specs: Mapping[str, Any]) -> str:
    """The whole document. `specs`: Vega-Lite specs by the name of their figure."""
    scripts = [_bundle(), _asset("page.js"), *(section.js for section in sections if section.js)]
    style = "\n".join([_asset("page.css"), *(section.css for section in sections)])
    links = "".join(f'<li><a href="#{text(s.anchor)}">{text(s.title)}</a></li>' for s in sections)
    bodies = "".join(
        f'<section id="{text(s.anchor)}" aria-labelledby="{text(s.anchor)}-title">'
        f'<h2 id="{text(s.anchor)}-title">{text(s.title)}</h2>{s.html}</section>\n'
        for s in sections
    )
    parts = {
        "policy": text(_policy(scripts)),
        "title": text(title),
        "style": style,
        "links": links,
        "key": key,
        "sections": bodies,
        "source": text(source),
        "specs": script_json(_without_legends(specs)),
        "scripts": "\n".join(f"<script>{script}</script>" for script in scripts),
    }
    return _filled(_asset("page.html"), parts)


def script_json(value: object) -> str:
    """JSON that may stand in a script element, whatever strings it holds."""
    dumped = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return dumped.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


def _without_legends(spec: Any) -> Any:
    """The page says in HTML what colours mean."""
    if isinstance(spec, Mapping):
        return {key: None if key == "legend" else _without_legends(value) for key, value in spec.items()}
    return [_without_legends(value) for value in spec] if isinstance(spec, list) else spec


def _policy(scripts: Iterable[str]) -> str:
    """Nothing is fetched from anywhere, and no other script than ours runs. Vega compiles expressions: unsafe-eval."""
    hashes = " ".join(f"'sha256-{_digest(script)}'" for script in scripts)
    return (
        f"default-src 'none'; script-src {hashes} 'unsafe-eval'; style-src 'unsafe-inline'; img-src data: blob:; "
        f"base-uri 'none'; form-action 'none'"
    )


def _digest(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


def _filled(template: str, parts: Mapping[str, str]) -> str:
    """`{{name}}` by its part, in one pass: braces inside a part stay."""
    head, *rest = template.split("{{")
    pieces = [head]
    for piece in rest:
        name, after = piece.split("}}", 1)
        pieces += [parts[name], after]
    return "".join(pieces)


def _asset(name: str) -> str:
    return (_HERE / name).read_text(encoding="utf-8")


@cache
def _bundle() -> str:
    """Vega, Vega-Lite and vega-embed as one script."""
    import vl_convert

    bundle = vl_convert.javascript_bundle(_TO_WINDOW)
    return bundle.replace("</script", "<\\/script").replace("\r\n", "\n")
