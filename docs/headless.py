"""A headless Chromium for pictures and tests."""

import shutil
from typing import Any

from selenium import webdriver

MISSING = "chromium or chromedriver is missing: apt-get install chromium chromium-driver"
ARGUMENTS = ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars")


def open_chromium(width_px: int, height_px: int) -> Any:
    """A selenium driver that keeps console messages and every network event; `quit` it.

    Raises `FileNotFoundError` where there is no Chromium.
    """
    program, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if program is None or driver is None:
        raise FileNotFoundError(MISSING)
    options = webdriver.ChromeOptions()
    options.binary_location = program
    for argument in (*ARGUMENTS, f"--window-size={width_px},{height_px}"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    return webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
