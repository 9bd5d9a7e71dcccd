"""Hook of mkdocs: links from a page to files outside `docs/` become plain text, since the site does not hold them.

On GitHub and in a clone the same links lead to the files.
"""

import re
from typing import Any

_LINK = re.compile(r"\[([^\]]*)\]\(\.\./[^)]*\)")


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Return the page without links to files outside `docs/` (see mkdocs' plugin event of this name)."""
    return _LINK.sub(r"\1", markdown)
