"""Tests in a browser that are skipped are a line at the end of a test run."""

from pathlib import Path

pytest_plugins = ["pytester"]
CONFTEST = Path(__file__).parents[1] / "conftest.py"
TESTS = """
import pytest

@pytest.mark.browser
def test_page():
    pytest.skip("chromium is missing")

@pytest.mark.slow
def test_other():
    pytest.skip("of another reason")
"""


def test_skipped_tests_in_a_browser_are_named_with_the_remedy_and_others_are_not(pytester):
    pytester.makeconftest(CONFTEST.read_text(encoding="utf-8"))
    pytester.makeini("[pytest]\nmarkers = browser: a browser\n  slow: takes long")
    pytester.makepyfile(TESTS)
    lines = pytester.runpytest_subprocess("-p", "no:cacheprovider").outlines
    line = (
        "1 tests in a browser were skipped (chromium is missing): install Chromium (Debian: apt-get install chromium)"
    )
    assert [found.startswith(line) for found in lines if "in a browser" in found] == [True]
