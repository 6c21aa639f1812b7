"""The report in a real browser. Needs Chromium and its driver (Debian: chromium, chromium-driver)."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from run_folder import NETWORKS, build_run

from espalier.recipes.report import write_report

FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
ALL_DRAWN = "return document.querySelectorAll('.plot .main-svg').length > 0 && \
[...document.querySelectorAll('.plot')].every(plot => plot.querySelector('.main-svg'))"


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    webdriver = pytest.importorskip("selenium.webdriver")
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not (chromium and driver):
        pytest.skip("needs Chromium and chromedriver (Debian: chromium, chromium-driver)")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    browser = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    try:
        yield browser
    finally:
        browser.quit()


@pytest.fixture(scope="module")
def page(browser: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The browser with the whole report drawn; it is loaded once, which takes longer than all that is done to it."""
    report = write_report(build_run(tmp_path_factory.mktemp("run")))
    browser.get(report.as_uri())
    wait(browser, ALL_DRAWN)
    return browser


@pytest.fixture
def opened(page: Any) -> Any:
    """The drawn report, 1280 pixels wide."""
    resize(page, 1280)
    return page


def wait(browser: Any, condition: str) -> None:
    from selenium.webdriver.support.ui import WebDriverWait

    WebDriverWait(browser, 20, poll_frequency=0.05).until(lambda b: b.execute_script(condition))


def resize(browser: Any, width: int) -> None:
    """Set the width of the window and wait until the plots have taken theirs from it."""
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    fits = "plot => plot.querySelector('.main-svg').clientWidth === plot.clientWidth"
    wait(browser, f"return innerWidth === {width} && [...document.querySelectorAll('.plot')].every({fits})")


def errors(browser: Any) -> list[str]:
    return [entry["message"] for entry in browser.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")]


def test_a_click_on_a_network_of_the_front_leads_to_its_card(opened: Any) -> None:
    from selenium.webdriver import ActionChains

    points = opened.find_elements("css selector", "#plot-pareto .points path.point")
    assert len(points) == NETWORKS
    # the second trace's first point; the first trace is the line of the front
    id = opened.execute_script("return document.getElementById('plot-pareto').data[1].customdata[0]")
    opened.execute_script("arguments[0].scrollIntoView({block: 'center', behavior: 'instant'})", points[0])
    ActionChains(opened).move_to_element(points[0]).perform()
    wait(opened, "return document.querySelector('#plot-pareto .hovertext') !== null")
    ActionChains(opened).click().perform()
    wait(opened, "return document.querySelector('.card:target') !== null")
    card = opened.find_element("css selector", ".card:target")
    assert card.get_attribute("id") == f"network-{id}"
    assert card.value_of_css_property("box-shadow") != "none"
    wait(
        opened,
        "const box = document.querySelector('.card:target').getBoundingClientRect();"
        "return box.top < innerHeight && box.bottom > 0",
    )
    assert errors(opened) == []


def test_the_chosen_predictor_is_drawn(opened: Any) -> None:
    from selenium.webdriver.support.ui import Select

    visible = "return document.getElementById('plot-estimates').data.filter(t => t.visible).map(t => t.name)"
    assert opened.execute_script(visible) == ["gradsign"]
    Select(opened.find_element("id", "choose-estimates")).select_by_visible_text("inherited")
    wait(opened, f"{visible}[0] === 'inherited'".replace("return ", "return (").replace("[0]", ")[0]"))
    title = opened.find_element("css selector", "#plot-estimates .xtitle").text
    assert title == "inherited (share, higher is better)"
    assert len(opened.find_elements("css selector", "#plot-estimates .points path.point")) == NETWORKS
    assert errors(opened) == []


def test_the_recipe_opens(opened: Any) -> None:
    recipe = opened.find_element("css selector", "#recipe pre")
    assert not recipe.is_displayed()
    summary = opened.find_element("css selector", "#recipe summary")
    opened.execute_script("arguments[0].scrollIntoView({block: 'center', behavior: 'instant'})", summary)
    summary.click()
    assert recipe.is_displayed()
    assert "name: nasbench201" in recipe.text


@pytest.mark.parametrize("width", [400, 1280])
def test_no_sideways_scrolling(opened: Any, width: int) -> None:
    resize(opened, width)
    assert opened.execute_script("return document.documentElement.scrollWidth") <= width


def test_dark_pages_have_light_text_in_figures(opened: Any) -> None:
    feature = {"name": "prefers-color-scheme", "value": "dark"}
    opened.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})
    try:
        wait(opened, "return document.getElementById('plot-pareto').layout.font.color === '#e6e6e3'")
        title = opened.find_element("css selector", "#plot-pareto .xtitle")
        assert title.value_of_css_property("fill") == "rgb(230, 230, 227)"
    finally:
        opened.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})


def test_an_unfinished_run_has_no_errors(browser: Any, tmp_path: Path) -> None:
    browser.get(write_report(build_run(tmp_path, stages=("data", "search"))).as_uri())
    wait(browser, ALL_DRAWN)
    assert errors(browser) == []
