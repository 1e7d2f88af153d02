"""The report in a real browser without a window: layout at two widths, sorting, slider, zoom, screenshots."""

import json
import re
import shutil
import subprocess
from html import unescape

import numpy as np
import pytest
from PIL import Image

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
BROWSER = next((path for path in map(shutil.which, NAMES) if path), None)
OPTIONS = "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
OPTIONS += "--disable-component-update --disable-sync --hide-scrollbars --force-prefers-reduced-motion"

pytestmark = pytest.mark.skipif(BROWSER is None, reason=f"no browser: none of {', '.join(NAMES)}")

# Runs in the page after its own script, acts as a reader would, and leaves what it saw in the page.
PROBE = """
const seen = {};
const stage = document.querySelector(".stage"), gallery = document.querySelector(".gallery");
const [one, two] = gallery.querySelectorAll(".side"), tiles = gallery.querySelectorAll(".tile img");
const control = (name) => gallery.querySelector(`[name=${name}]`);
function set(name, value) {
  control(name).value = value;
  control(name).dispatchEvent(new Event("input"));
}
function column(index) {
  const rows = document.querySelectorAll("table.sortable tbody")[0].querySelectorAll("tr:not(.group)");
  return [...rows].map((row) => Number(row.cells[index].dataset.value));
}
function pointer(name, x, y) {
  const box = stage.getBoundingClientRect();
  const at = { clientX: box.left + x * box.width, clientY: box.top + y * box.height, pointerId: 1, bubbles: true };
  stage.dispatchEvent(new PointerEvent(name, at));
}
stage.setPointerCapture = () => {};
const visible = () => getComputedStyle(two).clipPath;

seen.width = innerWidth;
seen.overflow = document.documentElement.scrollWidth - innerWidth;
const inPage = [...document.querySelectorAll("body *")].filter((e) => !e.closest(".scroll, pre, svg, .stage"));
const wide = inPage.filter((e) => e.getBoundingClientRect().right > innerWidth + 1);
seen.wide = wide.map((e) => e.outerHTML.slice(0, 80));
seen.broken = [...document.images].filter((image) => !image.complete || !image.naturalWidth).length;

seen.unsorted = column(1);
const header = document.querySelectorAll("table.sortable thead button")[1];
header.click();
seen.ascending = [column(1), header.parentNode.ariaSort];
header.click();
seen.descending = [column(1), header.parentNode.ariaSort];

seen.defaults = [one.textContent.trim(), two.textContent.trim(), one.querySelector("img").src === tiles[0].src];
set("right", 1); set("prompt", 2);
seen.chosen = two.querySelector("img").src === tiles[2 * control("left").length + 1].src;
set("split", 20);
seen.split = visible();
pointer("pointerdown", 0.7, 0.5); pointer("pointermove", 0.75, 0.5); pointer("pointerup", 0.75, 0.5);
seen.dragged = Number(control("split").value);
set("zoom", 4);
seen.zoomed = one.querySelector("img").style.transform;
pointer("pointerdown", 0.5, 0.5); pointer("pointermove", 0.1, 0.5); pointer("pointerup", 0.1, 0.5);
seen.panned = [one, two].map((side) => side.querySelector("img").style.transform);
stage.dispatchEvent(new KeyboardEvent("keydown", { key: "ArrowUp" }));
seen.moved = one.querySelector("img").style.transform;
tiles[tiles.length - 1].parentNode.click();
seen.clicked = two.querySelector("img").src === tiles[tiles.length - 1].src && control("prompt").value === "3";
parent.postMessage(JSON.stringify(seen), "*");
"""
# A window has a least width, a frame has none.
WIDTHS, HEIGHT = (1280, 400), 2000
FRAME = f'<iframe src="probe.html" style="width: %dpx; height: {HEIGHT}px; border: 0; flex: none"></iframe>'
PAGE = f"""
<body style="margin: 0; display: flex">{"".join(FRAME % width for width in WIDTHS)}<pre id="seen"></pre>
<script>
const seen = document.getElementById("seen");
addEventListener("message", (event) => {{ seen.textContent += event.data + "\\n"; }});
</script></body>
"""


@pytest.fixture(scope="module")
def browsed(report_page, tmp_path_factory):
    """What the probe saw in the report at each width, and a screenshot of both side by side, from one browser."""
    folder = tmp_path_factory.mktemp("browser")
    html = report_page.read_text(encoding="utf-8").replace("</body>", f"<script>{PROBE}</script></body>")
    (folder / "probe.html").write_text(html, encoding="utf-8")
    (folder / "page.html").write_text(PAGE, encoding="utf-8")
    window = [f"--user-data-dir={folder / 'profile'}", f"--window-size={sum(WIDTHS)},{HEIGHT}"]
    wanted = ["--virtual-time-budget=10000", "--dump-dom", f"--screenshot={folder / 'page.png'}"]
    command = [BROWSER, *OPTIONS.split(), *window, *wanted, f"file://{folder / 'page.html'}"]
    shown = subprocess.run(command, check=True, capture_output=True, text=True, timeout=120).stdout
    lines = unescape(re.search(r'<pre id="seen">(.*?)</pre>', shown, re.DOTALL).group(1)).splitlines()
    return {found["width"]: found for found in map(json.loads, lines)}, Image.open(folder / "page.png").convert("RGB")


@pytest.fixture(params=WIDTHS)
def seen(request, browsed):
    return browsed[0][request.param]


def test_the_page_is_as_wide_as_the_window(seen):
    assert seen["overflow"] <= 0
    assert seen["wide"] == []


def test_all_images_are_shown(seen):
    assert seen["broken"] == 0


def test_a_click_on_a_header_sorts(seen):
    assert seen["ascending"] == [sorted(seen["unsorted"]), "ascending"]
    assert seen["descending"] == [sorted(seen["unsorted"], reverse=True), "descending"]


def test_the_slider_compares_what_is_chosen(seen):
    assert seen["defaults"] == ["direct", "scalecrafter", True]
    assert seen["chosen"]
    assert seen["clicked"]


def test_the_divider_moves(seen):
    assert "20%" in seen["split"]
    assert seen["dragged"] == pytest.approx(75, abs=1)


def test_zoom_and_move_act_on_both(seen):
    assert seen["zoomed"] == "scale(4) translate(-37.5%, -37.5%)"
    assert seen["panned"] == ["scale(4) translate(-47.5%, -37.5%)"] * 2
    assert seen["moved"] == "scale(4) translate(-47.5%, -35%)"


@pytest.mark.parametrize(("left", "right"), [(0, WIDTHS[0]), (WIDTHS[0], sum(WIDTHS))])
def test_a_screenshot_shows_a_page(browsed, left, right):
    pixels = np.asarray(browsed[1].crop((left, 0, right, HEIGHT)), np.uint32) @ (1 << 16, 1 << 8, 1)
    assert browsed[1].width == sum(WIDTHS)
    assert len(np.unique(pixels)) > 1000  # text, charts and images, not an empty page
