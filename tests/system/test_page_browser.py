"""The page in a real Chromium, from disk: drawn, followed by mouse and keyboard, safe, silent."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks import made_up
from distforget.plan import make_plan
from distforget.report.page import write_report
from distforget.store import Store
from distforget.study import Study
from tests.hostile import HOSTILE

pytestmark = pytest.mark.browser

WORDS = {
    "出生在青岛。": [*"出生在青岛"],
    "हिन्दी में।": ["हिन्दी", "में"],
    "Er wohnt in Mu\u0308nchen": ["er", "wohnt", "in", "münchen"],
    "ลัง, コンabc": ["ลั", "ง", "コ", "ン", "abc"],
}
"""What is compared of some texts with their true answers."""

STUDY = {
    "name": "made-up",
    "data": {"targets": 5, "others": 12, "similar": {"per_target": 5}},
    "models": [{"name": "m", "base": "hub/model"}, {"name": "n", "base": "hub/other"}],
    "doses": [0, 1, "all"],
    "methods": ["GA_KLN", "NPO_GDN"],
    "unlearn_targets": 5,
    "verify": {"others": 10},
}


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    plan, store = (
        make_plan(Study.model_validate(STUDY)),
        Store(tmp_path_factory.mktemp("store")),
    )
    made_up.fill(plan, store, lambda kind, number: HOSTILE[number % len(HOSTILE)])
    return write_report(plan, store)


@pytest.fixture
def browser() -> Iterator[Any]:
    """A fresh browser that notes its console and all requests."""
    from selenium import webdriver
    from selenium.webdriver.chrome.options import Options
    from selenium.webdriver.chrome.service import Service

    driver = shutil.which("chromedriver")
    assert driver, "install Chromium and its driver (Debian: chromium chromium-driver)"
    options = Options()
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--window-size=1440,1000"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    made = webdriver.Chrome(options, Service(driver))
    yield made
    made.quit()


def wait(browser: Any, wanted: str) -> Any:
    """What an expression gives as soon as it is true."""
    for _ in range(600):
        found = browser.execute_script(f"return {wanted}")
        if found:
            return found
        time.sleep(0.05)
    raise AssertionError(f"{wanted}: not within 30 s")


def open_all(browser: Any, index: Path) -> None:
    """Open the page and every claim, and look at every chart."""
    browser.get(index.as_uri())
    wait(browser, "document.querySelector('.answer')")
    browser.execute_script("document.querySelectorAll('details').forEach((d) => d.open = true)")
    count = wait(browser, "document.querySelectorAll('.chart').length")
    for i in range(count):
        browser.execute_script(f"document.querySelectorAll('.chart')[{i}].scrollIntoView()")
        wait(
            browser, f"document.querySelectorAll('.chart')[{i}].querySelector('svg path[tabindex]')"
        )


def complaints(browser: Any) -> list[str]:
    return [entry["message"] for entry in browser.get_log("browser")]


def requests(browser: Any) -> list[str]:
    messages = [json.loads(e["message"])["message"] for e in browser.get_log("performance")]
    return [
        m["params"]["request"]["url"]
        for m in messages
        if m["method"] == "Network.requestWillBeSent"
    ]


def test_all_charts_are_drawn_without_a_word_or_a_request(browser: Any, index: Path) -> None:
    open_all(browser, index)
    assert browser.execute_script("return document.querySelectorAll('.chart').length") >= 8
    assert complaints(browser) == []
    asked = requests(browser)
    assert any(url.endswith("vega.js") for url in asked)
    assert [url for url in asked if not url.startswith(("file:", "data:"))] == []


def test_a_dot_that_is_clicked_leads_to_its_answers(browser: Any, index: Path) -> None:
    from selenium.webdriver.common.by import By

    open_all(browser, index)
    dot = browser.find_elements(By.CSS_SELECTOR, "#chart-list path[tabindex]")[-1]
    told = dot.get_attribute("aria-label")
    target = told.split("target ")[1].split(":")[0]
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", dot)
    dot.click()
    wait(browser, "location.hash.startsWith('#answers?')")
    wait(browser, f"document.querySelector('#shown h3').textContent === 'Target {target}'")
    state = browser.execute_script("return page.explorer.state")
    assert told.startswith(f"{state['method']}, dose {state['dose']}, target {state['target']}:")


def test_the_keyboard_alone_leads_from_a_verdict_to_answers(browser: Any, index: Path) -> None:
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.keys import Keys

    open_all(browser, index)
    browser.execute_script("document.querySelector('.claim summary').focus()")

    def press(*keys: str) -> None:
        ActionChains(browser).send_keys(*keys).perform()

    press(Keys.TAB)
    first = browser.execute_script("return document.activeElement.getAttribute('aria-label')")
    press(Keys.ARROW_RIGHT)
    second = browser.execute_script("return document.activeElement.getAttribute('aria-label')")
    assert first != second
    assert browser.execute_script("return document.getElementById('tip').textContent") == second
    press(Keys.ENTER)
    wait(browser, "document.querySelector('aside')")
    current = browser.execute_script(
        "return document.querySelector('.targets [aria-current]').textContent"
    )
    assert second.split(", ")[-1].replace(": ", " ") == current
    assert browser.execute_script("return document.activeElement.id") == "answers"


def test_hostile_answers_are_shown_and_do_nothing(browser: Any, index: Path) -> None:
    open_all(browser, index)
    shown: set[str] = set()
    for target in range(1, 6):
        browser.execute_script(f"location.hash = '#answers?target={target}'")
        wait(browser, f"document.querySelector('#shown h3').textContent === 'Target {target}'")
        browser.execute_script("document.querySelectorAll('details').forEach((d) => d.open = true)")
        shown |= set(
            browser.execute_script(
                "return [...document.querySelectorAll('.answer, h4')].map((p) => p.textContent)"
            )
        )
    assert browser.execute_script("return window.hacked") is None
    assert set(HOSTILE) - shown == set()
    tags = browser.execute_script(
        "return [...document.querySelectorAll('#shown *')].map((e) => e.localName)"
    )
    assert set(tags) <= {"section", "details", "summary", "article", "div", "h3", "h4", "h5", "p",
                         "span", "mark", "dl", "dt", "dd", "em", "bdi"}  # fmt: skip
    assert browser.current_url.startswith(index.as_uri())
    assert complaints(browser) == []
    assert [url for url in requests(browser) if not url.startswith(("file:", "data:"))] == []


def test_answers_are_compared_by_words_of_all_languages(browser: Any, index: Path) -> None:
    open_all(browser, index)
    words = "return arguments[0].map(t => page.explorer.words(t).map(w => w.key).filter(Boolean))"
    assert browser.execute_script(words, list(WORDS)) == list(WORDS.values())


@pytest.mark.parametrize("width", [390, 1440])
def test_nothing_sticks_out(browser: Any, index: Path, width: int) -> None:
    browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500},
    )
    open_all(browser, index)
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width


def test_dark_is_followed_and_charts_with_it(browser: Any, index: Path) -> None:
    def seen(scheme: str) -> tuple[str, str]:
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
        open_all(browser, index)
        label = "getComputedStyle(document.querySelector('.chart svg text')).fill"
        ground = "getComputedStyle(document.body).backgroundColor"
        return browser.execute_script(f"return [{label}, {ground}]")

    light, dark = seen("light"), seen("dark")
    assert light[0] != dark[0]
    assert light[1] != dark[1]


def test_a_lost_file_is_said(browser: Any, index: Path, tmp_path: Path) -> None:
    copied: Callable[..., Any] = shutil.copytree
    folder = copied(index.parent, tmp_path / "report")
    (folder / "data" / "target-2.js").unlink()
    browser.get((folder / "index.html").as_uri() + "#answers?target=2")
    said = wait(browser, "document.querySelector('#shown').textContent")
    assert "data/target-2.js is missing beside this page" in said
