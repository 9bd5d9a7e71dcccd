"""A headless Chromium for tests. A machine without one fails the test with how to mend that."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from docs.headless import open_chromium


@contextmanager
def browser(width: int = 1280, height: int = 1000) -> Iterator[Any]:
    """A selenium driver that keeps console messages and every network event."""
    try:
        opened = open_chromium(width, height)
    except FileNotFoundError as error:
        pytest.fail(f"the report is tested in a real browser: {error}", pytrace=False)
    try:
        opened.set_script_timeout(120)
        opened.set_page_load_timeout(120)
        yield opened
    finally:
        opened.quit()
