"""Tests in a browser that are skipped are a line at the end of a test run."""

from pathlib import Path

pytest_plugins = ["pytester"]
CONFTEST = Path(__file__).parents[1] / "conftest.py"
TEST = """
import pytest

@pytest.mark.{mark}
def test_page():
    pytest.skip("chromium is missing")
"""


def summary(pytester, mark):
    """What a test run prints whose only test, with this mark, is skipped."""
    pytester.makeconftest(CONFTEST.read_text(encoding="utf-8"))
    pytester.makeini("[pytest]\nmarkers = browser: a browser\n  slow: takes long")
    pytester.makepyfile(TEST.format(mark=mark))
    return pytester.runpytest_subprocess("-p", "no:cacheprovider").stdout.str()


def test_skipped_tests_in_a_browser_are_named_with_the_remedy(pytester):
    line = (
        "1 tests in a browser were skipped (chromium is missing): install Chromium (Debian: apt-get install chromium)"
    )
    assert line in summary(pytester, "browser")


def test_other_skipped_tests_are_not(pytester):
    assert "in a browser" not in summary(pytester, "slow")
