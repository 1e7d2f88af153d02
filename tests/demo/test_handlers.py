"""What the page's handlers answer, without a browser."""

from itertools import islice

import numpy as np
import pytest

from experiments.demo.handlers import Handlers, duration
from experiments.demo.parts import Parts

USUAL = (True, True, False, False)
LONG = {"steps": 500, "method": "multidiffusion"}  # quickly planned: its calls are all alike


@pytest.fixture
def handlers(studio):
    return Handlers(studio)


def values(prompt="a red house", seed=3, steps=2, method="scalecrafter", height=64, width=64, parts=USUAL):
    return (prompt, seed, steps, method, height, width, *parts)


def last(handlers, *given):
    return list(handlers.draw("visitor", *given))[-1]


def test_drawing_shows_direct_inference_first_and_then_both(handlers):
    shown = list(handlers.draw("visitor", *values()))
    *early, pair = (update.pair for update in shown if update.pair)
    left, right = (np.asarray(image) for image in pair)
    for first, second in early:  # none if the other image was there at once
        assert first is second
        assert np.array_equal(left, np.asarray(first))
    assert left.shape == (64, 64, 3)
    assert not np.array_equal(left, right)
    assert "Done" in shown[-1].status
    assert "scalecrafter" in shown[-1].caption
    assert "4 times the training area" in shown[-1].caption
    assert "tau: 30" in shown[-1].yaml
    assert "scalecrafter.enable" in shown[-1].python


def test_a_switch_draws_one_image_and_is_named(handlers):
    list(handlers.draw("visitor", *values()))
    assert "already" in handlers.estimate(*values())
    off = values(parts=(True, False, True, False))
    assert "direct inference is there already" in handlers.estimate(*off)
    shown = list(handlers.draw("visitor", *off))
    assert [update.pair is not None for update in shown].count(True) == 1
    assert "scalecrafter without cutoff, with dispersion**" in shown[-1].caption


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"height": None}, "The height is a whole number, not empty."),
        ({"width": 64.5}, "The width is a whole number, not 64.5."),
        ({"seed": float("nan")}, "The seed is a whole number, not nan."),
        ({"seed": float("inf")}, "The seed is a whole number"),
        ({"seed": -1}, "The seed is a whole number from 0 to 9007199254740991, not -1."),
        ({"steps": 0}, "The steps are a whole number from 1 to 500, not 0."),
        ({"height": 63}, "63x64 (height x width) is not divisible by 4"),
        ({"height": 4, "width": 4}, "4x4 is below the training size 32x32"),
        ({"height": 10**9}, "this page draws up to 20 times"),
        ({"method": "none of these"}, "none of these"),
        ({"method": "../../secret"}, "method"),
        ({"method": "accdiffusion", "height": 36, "width": 28}, "is below"),
    ],
)
def test_what_is_wrong_is_one_sentence(handlers, given, sentence):
    for html in (last(handlers, *values(**given)).status, handlers.estimate(*values(**given))):
        assert sentence in html
        assert html.count("<p") == 1
        assert "Traceback" not in html


def test_an_empty_prompt_is_drawn_with_a_warning(handlers):
    shown = last(handlers, *values(prompt=None))
    assert "The prompt is empty" in shown.status
    assert shown.pair


def test_what_a_visitor_writes_is_not_html(handlers):
    status = last(handlers, *values(method="<b>x</b>")).status
    assert "<b>" not in status


def test_cancelling_ends_a_drawing_and_keeps_the_page(handlers):
    drawing = handlers.draw("visitor", *values(**LONG))
    assert "<progress" in next(drawing).status
    handlers.cancel("somebody else")
    assert "<progress" in next(drawing).status
    handlers.cancel("visitor")
    rest = list(drawing)
    assert "Cancelled" in rest[-1].status
    assert rest[-1].pair is None
    assert last(handlers, *values()).pair


def test_another_drawing_of_the_same_visitor_replaces_the_first(handlers):
    first = handlers.draw("visitor", *values(**LONG))
    next(first)
    second = handlers.draw("visitor", *values())
    next(second)
    assert not [update for update in first if "Cancelled" in update.status or update.pair]
    assert list(second)[-1].pair


def test_a_visitor_waits_for_another(handlers):
    first = handlers.draw("one", *values(**LONG))
    next(first)
    second = handlers.draw("two", *values(seed=4))
    assert "Waiting for 2 other images" in next(second).status
    handlers.leave("one")
    assert list(second)[-1].pair
    first.close()


def test_a_closed_page_stops_drawing(handlers, studio):
    drawing = handlers.draw("visitor", *values(**LONG))
    list(islice(drawing, 2))
    drawing.close()
    assert last(handlers, *values()).pair  # at once: nothing is before it


def test_an_unexpected_error_is_logged_and_named(handlers, studio, monkeypatch, caplog):
    monkeypatch.setattr(studio.pipe.unet, "forward", lambda *args, **kwargs: 1 / 0)
    status = last(handlers, *values()).status
    assert "Unexpected error (ZeroDivisionError)" in status
    assert "ZeroDivisionError" in caplog.text


def test_sizes_and_parts_follow_the_choice(handlers):
    assert handlers.size(4.0, "1:1") == (64, 64)
    assert handlers.size(8.0, "2:1") == (64, 128)
    assert handlers.size(4.0, "nonsense") is None
    assert handlers.parts("scalecrafter", 64, 64) == Parts()
    assert handlers.parts("scalecrafter", 128, 128) == Parts(noise_damping=True)
    assert handlers.parts("sdedit", 64, 64) is None
    assert handlers.parts("scalecrafter", 63, None) is None


def test_durations_are_rounded_for_people():
    assert [duration(seconds) for seconds in (0.04, 9.94, 12.6, 89, 600)] == [
        "0.0 s",
        "9.9 s",
        "13 s",
        "89 s",
        "10 min",
    ]
