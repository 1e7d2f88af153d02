"""The site of docs/: it builds without a warning, asks no other host for anything, and shows what it should."""

import os
import re
import subprocess
import sys
from html.parser import HTMLParser

import pytest

import scalecrafter
import scalecrafter.diffusers
from scalecrafter.comfyui import NODE_CLASS_MAPPINGS
from tests.docs.pages import DOCS, ROOT

pytest.importorskip("mkdocs", reason="the site needs the extra docs: pip install -e .[docs]")
pytest.importorskip("mkdocstrings", reason="the site needs the extra docs: pip install -e .[docs]")

# Elements whose attribute makes a browser ask for a file when it shows the page; a link is followed only on a click.
LOADED = {
    **dict.fromkeys(("script", "img", "iframe", "source", "video", "audio", "embed", "track", "input"), ("src",)),
    "object": ("data",),
    "image": ("href", "xlink:href"),
    "use": ("href", "xlink:href"),
}
LINKS = {"stylesheet", "icon", "preload", "prefetch", "preconnect", "dns-prefetch", "modulepreload", "manifest"}
ELSEWHERE = re.compile(r"^\s*(https?:)?//", re.IGNORECASE)
IN_STYLES = re.compile(r"(?:url\(\s*|@import\s+)['\"]?((?:https?:)?//[^'\")]*)", re.IGNORECASE)


class Requests(HTMLParser):
    """Collects what a page loads from other hosts, and the classes on it."""

    def __init__(self, html):
        super().__init__()
        self.found, self.classes = IN_STYLES.findall(html), set()
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        values = {name: value or "" for name, value in attrs}
        self.classes |= set(values.get("class", "").split())
        names = LOADED.get(tag, ())
        if tag == "link" and LINKS & set(values.get("rel", "").split()):
            names = ("href",)
        loaded = [values.get(name, "") for name in names]
        loaded += [part.split()[0] for part in values.get("srcset", "").split(",") if part.strip()]
        self.found += [url for url in loaded if ELSEWHERE.match(url)]


def build(folder, *options):
    """Not with --quiet: mkdocs then counts no warnings, and builds whatever is broken."""
    command = [sys.executable, "-m", "mkdocs", "build", "--site-dir", str(folder), *options]
    quiet = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    return subprocess.run(command, cwd=ROOT, env=quiet, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    done = build(folder)
    assert done.returncode == 0, done.stderr
    return folder


def pages(site):
    return sorted(path for path in site.rglob("*.html"))


def test_every_page_is_there(site):
    made = {str(path.relative_to(site).with_suffix(".md")) for path in pages(site)} - {"404.md"}
    assert made == {str(path.relative_to(DOCS)) for path in DOCS.rglob("*.md")}


def test_it_asks_no_other_host_for_anything(site):
    loaded = {str(path.relative_to(site)): Requests(path.read_text(encoding="utf-8")) for path in pages(site)}
    assert {name: page.found for name, page in loaded.items() if page.found} == {}
    styles = {path.name: IN_STYLES.findall(path.read_text(encoding="utf-8")) for path in site.rglob("*.css")}
    assert styles
    assert not any(styles.values())
    # The theme's script fetches a library for these when a page has them.
    for page in loaded.values():
        assert not page.classes & {"mermaid", "arithmatex"}


@pytest.mark.parametrize(
    "html",
    [
        '<script src="https://a.example/x.js"></script>',
        '<link rel="preconnect stylesheet" href="//a.example/x.css">',
        '<img srcset="small.png 1x, https://a.example/x.png 2x">',
        "<style>@import 'https://a.example/x.css';</style>",
        '<p style="background: url(http://a.example/x.png)">',
    ],
)
def test_requests_to_other_hosts_are_noticed(html):
    assert Requests(html).found
    assert not Requests('<a href="https://a.example/">a link</a><script src="../x.js"></script>').found


def test_the_reference_shows_every_public_name_with_shapes(site):
    html = (site / "reference/library.html").read_text(encoding="utf-8")
    for name in scalecrafter.__all__:
        assert f"scalecrafter.{name}" in html, name
    text = re.sub(r"<[^>]+>", "", html)
    for words in ("(N, C_in, H, W)", "in pixels", "paper section 3.2", "paper section 3.3", "paper section 3.4"):
        assert words in text, words
    assert "Args:" not in text  # a section that was not recognised
    assert "Raises:" in text


def test_the_reference_shows_the_integrations(site):
    """The pipelines and the nodes that can be imported, and what can be given to them, with units."""
    html = (site / "reference/integrations.html").read_text(encoding="utf-8")
    text = " ".join(re.sub(r"<[^>]+>", "", html).split())
    for name in scalecrafter.diffusers.__all__:
        assert f"scalecrafter.diffusers.{name}" in text, name
    for node in NODE_CLASS_MAPPINGS.values():
        assert f"{node.__module__}.{node.__name__}" in text
        for kind in node.INPUT_TYPES().values():
            assert all(re.search(rf"\b{name}\b", text) for name in kind)
    assert "in pixels" in text
    assert "Raises:" in text


def test_formulas_are_drawn(site):
    html = (site / "how_it_works.html").read_text(encoding="utf-8")
    assert html.count('<math xmlns="http://www.w3.org/1998/Math/MathML" display="block">') >= 6
    assert "\\" not in "".join(re.findall(r"<math.*?</math>", html, re.DOTALL))  # a command that was not understood
    assert "$" not in re.sub(r"<[^>]+>", "", html)


def test_lists_are_lists(site):
    """What is a list on a page that is read as text is one here: no item is left inside a paragraph."""
    item = re.compile(r"<p>(?:(?!</p>).)*\n(?:[-*]|\d+\.) ", re.DOTALL)
    found = {path.name for path in pages(site) if item.search(path.read_text(encoding="utf-8"))}
    assert found == set()


BROKEN = """# Page

[a page](nowhere.md), [a place](index.md#no-place), [another place](#no-other-place)

::: wrong.double
"""
WRONG = '''
def double(x: int) -> int:
    """Twice as much.

    Args:
        value: any number.
    """
    return 2 * x
'''


def test_what_is_broken_stops_the_build(tmp_path):
    """A site with our configuration and five faults: every one is named."""
    (tmp_path / "docs").mkdir()
    files = {"wrong.py": WRONG, "docs/index.md": "# Start", "docs/broken.md": BROKEN, "docs/forgotten.md": "# Page"}
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    ours = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    configuration = re.sub(r"^nav:\n.*?\n\n", "nav: [index.md, broken.md]\n\n", ours, flags=re.MULTILINE | re.DOTALL)
    configuration = configuration.replace("docs/hooks/formulas.py", str(DOCS / "hooks/formulas.py"))
    (tmp_path / "mkdocs.yml").write_text(configuration.replace("paths: [.]", f"paths: [{tmp_path}]"))
    done = build(tmp_path / "site", "--config-file", str(tmp_path / "mkdocs.yml"))
    assert done.returncode != 0
    for fault in ("nowhere.md", "#no-place", "#no-other-place", "forgotten.md", "Parameter 'value' does not appear"):
        assert fault in done.stderr, done.stderr
