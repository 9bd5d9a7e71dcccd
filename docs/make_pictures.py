"""Draw docs/pictures/report.png and docs/pictures/credit.png, the pictures of the README, from run directories.

    python -m docs.make_pictures RUN_DIR [RUN_DIR …]

Needs the Debian packages chromium and chromium-driver. The credit map is that of the first run.
"""

import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from docs.headless import open_chromium
from orchestrator.commands.report.write import write_report

PICTURES = Path(__file__).parent / "pictures"
MOST_BYTES = 300_000
WIDTH_PX, REPORT_PX, CREDIT_PX = 1200, 1500, 800
DRAWN_WITHIN_S = 120.0
_WITHOUT_TABLES = ".runs { position: static !important } #overview > :not(.tiles):not(h2) { display: none }"

_SHOW_A_FAILURE = """
const chooser = document.querySelector('.credit-outcome');
chooser.value = [...chooser.options].find(option => option.textContent.startsWith('fail')).value;
chooser.dispatchEvent(new Event('change', {bubbles: true}));
"""


def main(run_dirs: list[Path]) -> None:
    """Write both pictures. Raises `SystemExit` if one is larger than `MOST_BYTES` or a program is missing."""
    PICTURES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        page, _ = write_report(run_dirs, Path(folder) / "report.html")
        driver = _open(page)
        try:
            _add_style(driver, _WITHOUT_TABLES)
            _shoot(driver, "body", REPORT_PX, PICTURES / "report.png")
            driver.execute_script(_SHOW_A_FAILURE)
            _shoot(driver, "#credit", CREDIT_PX, PICTURES / "credit.png")
        finally:
            driver.quit()


def _open(page: Path) -> Any:
    """Return a headless Chromium that has drawn every chart of the page."""
    driver = open_chromium(WIDTH_PX, REPORT_PX)
    _set_size(driver, REPORT_PX)
    driver.get(page.resolve().as_uri())
    deadline = time.monotonic() + DRAWN_WITHIN_S
    while not driver.execute_script("return document.documentElement.dataset.drawnMs"):
        if time.monotonic() > deadline:
            driver.quit()
            raise SystemExit(f"{page}: not drawn within {DRAWN_WITHIN_S:g} s")
        time.sleep(0.1)
    return driver


def _set_size(driver: Any, height_px: int) -> None:
    size = {"width": WIDTH_PX, "height": height_px, "deviceScaleFactor": 1, "mobile": False}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)


def _add_style(driver: Any, css: str) -> None:
    script = "document.head.append(Object.assign(document.createElement('style'), {textContent: arguments[0]}))"
    driver.execute_script(script, css)


def _shoot(driver: Any, selector: str, height_px: int, file: Path) -> None:
    """Write a picture of a window of this height that is scrolled to an element."""
    _set_size(driver, height_px)
    script = "scrollTo(0, document.querySelector(arguments[0]).getBoundingClientRect().top + scrollY)"
    driver.execute_script(script, selector)
    time.sleep(1.0)  # what is painted only when it comes into view
    file.write_bytes(driver.get_screenshot_as_png())
    size = file.stat().st_size
    print(f"{file}: {size / 1e3:.0f} kB")
    if size > MOST_BYTES:
        raise SystemExit(f"{file}: {size} bytes; allowed: at most {MOST_BYTES}")


if __name__ == "__main__":
    if len(sys.argv) < 2:
        raise SystemExit(__doc__)
    main([Path(argument) for argument in sys.argv[1:]])
