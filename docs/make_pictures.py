"""Make docs/pictures/report.png and docs/pictures/credit.png, the pictures of the README, of real run directories.

    python docs/make_pictures.py RUN_DIR [RUN_DIR …]

Needs chromium and chromium-driver, which Debian has. The credit map is that of the first run.
"""

import base64
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from selenium import webdriver

from orchestrator.report.write import write_report

PICTURES = Path(__file__).parent / "pictures"
MOST_BYTES = 300_000
WIDTH_PX = 1200
DRAWN_WITHIN_S = 120.0
_LONGEST_PX = 1500


def main(run_dirs: list[Path]) -> None:
    """Write both pictures. Raises `SystemExit` if one is larger than `MOST_BYTES`."""
    PICTURES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        page, _ = write_report(run_dirs, Path(folder) / "report.html")
        driver = _open(page)
        try:
            _shoot(driver, PICTURES / "report.png", 0, min(_box(driver, "#learning")["bottom"], _LONGEST_PX))
            box = _box(driver, "#credit")
            _shoot(driver, PICTURES / "credit.png", box["top"], min(box["bottom"] - box["top"], _LONGEST_PX / 2))
        finally:
            driver.quit()


def _open(page: Path) -> Any:
    """A headless Chromium that has drawn every chart of the page."""
    options = webdriver.ChromeOptions()
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars"):
        options.add_argument(argument)
    options.add_argument(f"--window-size={WIDTH_PX},1000")
    driver = webdriver.Chrome(options=options)
    driver.get(page.resolve().as_uri())
    deadline = time.monotonic() + DRAWN_WITHIN_S
    while not driver.execute_script("return document.documentElement.dataset.drawnMs"):
        if time.monotonic() > deadline:
            driver.quit()
            raise SystemExit(f"{page}: not drawn within {DRAWN_WITHIN_S:g} s")
        time.sleep(0.1)
    return driver


def _box(driver: Any, selector: str) -> dict[str, float]:
    """Top and bottom of an element on the page, in pixels."""
    script = (
        "const box = document.querySelector(arguments[0]).getBoundingClientRect();"
        "return {top: box.top + scrollY, bottom: box.bottom + scrollY};"
    )
    found: dict[str, float] = driver.execute_script(script, selector)
    return found


def _shoot(driver: Any, file: Path, top: float, height: float) -> None:
    clip = {"x": 0, "y": top, "width": WIDTH_PX, "height": height, "scale": 1}
    shot = driver.execute_cdp_cmd("Page.captureScreenshot", {"captureBeyondViewport": True, "clip": clip})
    file.write_bytes(base64.b64decode(shot["data"]))
    size = file.stat().st_size
    print(f"{file}: {size / 1e3:.0f} kB")
    if size > MOST_BYTES:
        raise SystemExit(f"{file}: {size} bytes; allowed: at most {MOST_BYTES}")


if __name__ == "__main__":
    if len(sys.argv) < 2:
        raise SystemExit(__doc__)
    main([Path(argument) for argument in sys.argv[1:]])
