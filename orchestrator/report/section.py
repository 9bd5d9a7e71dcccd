"""What the report's page is made of."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """A part of the page, self-contained.

    `anchor` is its element id and the prefix of its CSS classes and JavaScript names. `html` is safe to insert: what a
    model or a person wrote is escaped in it. `css` and `js` go into the page once each; neither loads anything.
    """

    anchor: str
    title: str
    html: str
    css: str = ""
    js: str = ""
