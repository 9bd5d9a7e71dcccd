"""The report in a real headless browser: drawn whole, silent on the console, no request to anywhere."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from orchestrator.cli import main
from tests.fixtures.browser import browser
from tests.fixtures.report import whole_run

DRAWN = """
const done = arguments[arguments.length - 1];
const ask = () => document.documentElement.dataset.drawnMs ? done(true) : setTimeout(ask, 50);
ask();
"""
MARKS = """
const drawn = {};
const count = (item) => item.items
  ? item.items.reduce((sum, child) => sum + count(child), item.role === "mark" && item.items.length ? 1 : 0) : 0;
for (const [name, { view }] of report.views) {
  const canvas = document.querySelector(`#chart-${name} canvas`);
  drawn[name] = { marks: count(view.scenegraph().root), width: canvas.width, height: canvas.height };
}
return drawn;
"""
COLOURED = """
const pixels = document.querySelector("#chart-heldout-pass-at-1 canvas");
const data = pixels.getContext("2d").getImageData(0, 0, pixels.width, pixels.height).data;
let found = 0;
for (let i = 0; i < data.length; i += 4) {
  if (data[i + 3] === 255 && data[i] === 0 && data[i + 1] === 114 && data[i + 2] === 178) found++;
}
return found;
"""


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two seeds of one group and a run of another."""
    folder = tmp_path_factory.mktemp("runs")
    runs = [whole_run(folder / f"sdpo-{seed}", seed) for seed in (0, 1)]
    runs.append(whole_run(folder / "quick", overrides=["learner.optimizer.learning_rate=1e-3"]))
    out = folder / "report.html"
    assert main(["report", *map(str, runs), "--out", str(out)]) == 0
    return out


@pytest.fixture(scope="module")
def opened(page: Path) -> Iterator[Any]:
    with browser() as driver:
        driver.get(page.as_uri())
        driver.execute_async_script(DRAWN)
        yield driver


def test_every_chart_is_drawn_the_console_is_silent_and_nothing_is_loaded(opened: Any, page: Path) -> None:
    drawn = opened.execute_script(MARKS)
    places = opened.execute_script("return document.querySelectorAll('.chart').length")
    assert len(drawn) == places >= 20
    for name, chart in drawn.items():
        assert chart["marks"] >= 1, name
        assert min(chart["width"], chart["height"]) > 200, name
    assert opened.execute_script(COLOURED) > 100  # the first group's line, in its colour
    assert opened.get_log("browser") == []
    events = [json.loads(entry["message"])["message"] for entry in opened.get_log("performance")]
    requested = [e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"]
    assert {url for url in requested if not url.startswith(("data:", "blob:"))} == {page.as_uri()}
    assert opened.execute_script("return performance.getEntriesByType('resource').length") == 0


def test_tokens_can_be_walked_and_values_are_a_table_by_keyboard(opened: Any) -> None:
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys
    from selenium.webdriver.support.ui import WebDriverWait

    tokens = opened.find_elements(By.CSS_SELECTOR, "#credit .credit-text .credit-token")
    assert tokens[0].text == "return"
    assert len(tokens) == 4
    summary = opened.find_element(By.CSS_SELECTOR, "#heldout-pass-at-1 details.values summary")
    summary.send_keys(Keys.ENTER)
    rows = WebDriverWait(opened, 20).until(
        lambda driver: driver.find_elements(By.CSS_SELECTOR, "#heldout-pass-at-1 .values tbody tr")
    )
    assert len(rows) == 3 * 2 + 2  # two evaluations of three runs, and their mean over two seeds
    assert "mean of 2 seeds" in rows[4].text
    assert opened.find_element(By.CSS_SELECTOR, ".skip").get_attribute("href").endswith("#main")


def test_hover_shows_the_values(opened: Any) -> None:
    from selenium.webdriver import ActionChains
    from selenium.webdriver.common.by import By
    from selenium.webdriver.support.ui import WebDriverWait

    chart = opened.find_element(By.CSS_SELECTOR, "#chart-train-teacher-gap canvas")
    opened.execute_script("arguments[0].scrollIntoView({block: 'center'})", chart)
    ActionChains(opened).move_to_element(chart).move_by_offset(5, 5).perform()
    tooltip = WebDriverWait(opened, 20).until(
        lambda driver: driver.find_element(By.CSS_SELECTOR, "#vg-tooltip-element.visible").text
    )
    assert "value" in tooltip
    assert "-0.5" in tooltip.replace("−", "-")


def test_a_phone_needs_no_sideways_scrolling_and_dark_is_dark(page: Path) -> None:
    with browser() as driver:
        emulated = {"width": 400, "height": 900, "deviceScaleFactor": 1, "mobile": True}
        driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", emulated)
        dark = {"features": [{"name": "prefers-color-scheme", "value": "dark"}]}
        driver.execute_cdp_cmd("Emulation.setEmulatedMedia", dark)
        driver.get(page.as_uri())
        driver.execute_async_script(DRAWN)
        assert driver.execute_script("return document.documentElement.scrollWidth") == 400
        assert driver.execute_script("return getComputedStyle(document.body).backgroundColor") == "rgb(20, 22, 26)"
        widths = [chart["width"] for chart in driver.execute_script(MARKS).values()]
        assert 300 < min(widths) <= max(widths) <= 400
