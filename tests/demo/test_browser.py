"""The page in Chromium, wide and narrow: as somebody uses it, and without a word to any other machine."""

import re
import shutil

import pytest

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
ARGUMENTS = [
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update", "--force-prefers-reduced-motion"),
]
DRAWN = 120_000  # ms until a test gives up waiting
pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def url(small):
    """The address of a page with a tiny pipeline."""
    pytest.importorskip("gradio", reason="gradio is missing")
    pytest.importorskip("playwright", reason="playwright is missing")
    if CHROMIUM is None:
        pytest.skip("chromium is missing")
    from experiments.demo.serving import serve

    with serve(small, "127.0.0.1", None) as url:
        yield url


@pytest.fixture(scope="module")
def browser(url):
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield browser
        browser.close()


WIDE, NARROW = 1280, 400


@pytest.fixture
def page(browser, url):
    """The page, loaded. At the end no request has left this machine, and nothing has failed in it."""
    page = browser.new_page(viewport={"width": WIDE, "height": 900})
    asked, errors = [], []
    page.on("request", lambda request: asked.append(request.url))
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(url)
    page.locator("#estimate p").wait_for(timeout=DRAWN)
    yield page
    page.close()
    assert asked
    assert [each for each in asked if not each.startswith((url, "data:", "blob:"))] == []
    assert errors == []


def fill(page, name, value):
    field = page.locator(f"#{name} input, #{name} textarea").first
    field.fill(str(value))
    field.press("Tab")


def sources(page):
    """Addresses of both images, which name their contents."""
    images = page.locator("#pair img")
    return [images.nth(index).get_attribute("src") for index in range(images.count())]


def unnamed_controls(page):
    """Those that somebody who does not see them cannot tell apart."""
    return page.evaluate(
        """() => [...document.querySelectorAll("input, textarea, select, button")]
            .filter(each => each.offsetParent && each.type != "hidden")
            .filter(each => !(each.getAttribute("aria-label") || each.title || each.labels?.length || each.innerText))
            .map(each => each.outerHTML)"""
    )


def draw(page):
    page.locator("#draw").click()
    page.get_by_text("Done. Move the slider.").wait_for(timeout=DRAWN)
    return sources(page)


def fits(page):
    """Nothing hangs over, on a wide screen and on a narrow one."""
    for width in (NARROW, WIDE):
        page.set_viewport_size({"width": width, "height": 900})
        page.wait_for_function("width => document.documentElement.scrollWidth <= width", arg=width, timeout=10_000)


def test_somebody_draws_compares_switches_and_cancels(page):
    fits(page)
    assert unnamed_controls(page) == []
    fill(page, "seed", 1280)
    page.locator("#estimate").get_by_text("Takes about").wait_for(timeout=DRAWN)

    left, right = draw(page)
    assert left != right
    fits(page)

    page.get_by_text("The right image without this page").click()
    assert "manual_seed(1280)" in page.locator("#python textarea").input_value(timeout=DRAWN)
    fits(page)

    shown = page.locator("#pair img").nth(1)
    before = shown.evaluate("image => getComputedStyle(image).clipPath")
    shown.scroll_into_view_if_needed()
    handle = page.locator("#pair [data-testid=slider]").bounding_box()
    x, y = handle["x"] + handle["width"] / 2, handle["y"] + handle["height"] / 2
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x + 80, y, steps=4)
    page.mouse.up()
    assert shown.evaluate("image => getComputedStyle(image).clipPath") != before

    page.set_viewport_size({"width": NARROW, "height": 900})
    page.locator("#cutoff input").click()
    page.get_by_text("without cutoff").wait_for(timeout=DRAWN)
    assert sources(page)[0] == left
    assert sources(page)[1] != right

    fill(page, "steps", 500)
    page.locator("#draw").click()
    page.locator("#status progress").wait_for(timeout=DRAWN)
    page.locator("#cancel").click()
    page.get_by_text("Cancelled.").wait_for(timeout=DRAWN)

    fill(page, "steps", 2)
    fill(page, "height", 62)
    page.locator("#draw").click()
    page.locator("#status").get_by_text(re.compile("62x64 .* is not divisible by 4")).wait_for(timeout=DRAWN)
    assert "Error" not in page.locator("body").inner_text()
