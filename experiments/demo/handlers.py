"""What the page does when somebody changes a control, draws or cancels. What is wrong comes back as a sentence."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from concurrent.futures import wait
from dataclasses import dataclass
from html import escape
from typing import Any

from PIL import Image

from experiments.demo.choice import OURS, Choice
from experiments.demo.parts import Parts
from experiments.demo.recipe import python_lines, recipe_yaml
from experiments.demo.sizes import parse_aspect, size_for
from experiments.demo.studio import Cancelled, Job, Studio
from experiments.demo.words import warnings
from experiments.setup.command_line import one_line
from scalecrafter.pipeline import size_multiple

PERIOD = 0.2  # seconds between two reports of progress
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Shown:
    """What changes on the page; None leaves as it is.

    Args:
        pair: images of the slider, left and right.
        caption: of the pair, Markdown.
        status: HTML.
        yaml, python: recipe of the right image.
    """

    status: str
    pair: tuple[Image.Image, Image.Image] | None = None
    caption: str | None = None
    yaml: str | None = None
    python: str | None = None


class Handlers:
    """Of one page, for all its visitors. ``visitor`` is any string that is theirs alone."""

    def __init__(self, studio: Studio) -> None:
        self.studio = studio
        self._stops: dict[str, threading.Event] = {}

    def read(self, prompt: Any, seed: Any, steps: Any, method: Any, height: Any, width: Any, *parts: Any) -> Choice:
        """The choice of the controls' values; ``parts`` in the order of `Parts`. ValueError with one sentence."""
        numbers = {"seed": seed, "steps": steps, "height": height, "width": width}
        for name, value in numbers.items():
            if not isinstance(value, (int, float)) or value != value // 1:
                raise ValueError(f"the {name} is a whole number, not {'empty' if value is None else value}")
        on = Parts(*map(bool, parts)) if method == OURS else None
        return Choice(str(prompt or ""), method=str(method), parts=on, **{k: int(v) for k, v in numbers.items()})

    def size(self, area: float, aspect: Any) -> tuple[int, int] | None:
        """(height, width) in pixels; None for an aspect that is none."""
        try:
            ratio = parse_aspect(aspect)
        except ValueError:
            return None
        return size_for(float(area), ratio, self.studio.training, size_multiple(self.studio.pipe))

    def parts(self, method: Any, height: Any, width: Any) -> Parts | None:
        """The parts that are on by themselves; None for another method, or where there are no settings."""
        try:
            choice = self.read("", 0, 1, method, height, width)
            return self.studio.parts_at(choice.height, choice.width) if method == OURS else None
        except (ValueError, OSError):
            return None

    def estimate(self, *values: Any) -> str:
        """HTML: how long drawing would take, or why it cannot be done."""
        try:
            choice = self.read(*values)
            direct, own = (self.studio.seconds(each) for each in (choice.direct(), choice))
        except (ValueError, OSError) as error:
            return warning(one_line(error))
        if not direct + own:
            return "<p>Both images are there already.</p>"
        kept = (
            "direct inference is there already" if not direct else f"{duration(direct)} of them for direct inference"
        )
        return f"<p>Takes about {duration(direct + own)} if nobody else draws: {kept}.</p>"

    def draw(self, visitor: str, *values: Any) -> Iterator[Shown]:
        """Draw both images, and say how far it is. Another drawing of the same visitor ends this one silently."""
        self.cancel(visitor)
        stop = self._stops[visitor] = threading.Event()
        try:
            choice = self.read(*values)
            jobs = [self.studio.start(each, stop) for each in (choice.direct(), choice)]
            yield from self._follow(jobs, choice)
        except Cancelled:
            if self._stops.get(visitor) is stop:
                yield Shown("<p>Cancelled. The images above are those of before.</p>")
        except (ValueError, OSError) as error:
            yield Shown(warning(one_line(error)))
        except Exception as error:
            log.exception("drawing failed")
            yield Shown(warning(f"unexpected error ({type(error).__name__}): the terminal of the page says more"))
        finally:
            stop.set()

    def cancel(self, visitor: str) -> None:
        """Stop what this visitor is drawing, within a step."""
        if visitor in self._stops:
            self._stops[visitor].set()

    def leave(self, visitor: str) -> None:
        """Stop, and forget the visitor."""
        self.cancel(visitor)
        self._stops.pop(visitor, None)

    def _follow(self, jobs: list[Job], choice: Choice) -> Iterator[Shown]:
        doubts = "".join(warning(line) for line in warnings(*self._prompt(choice)))
        first, both = jobs[0], [job.future for job in jobs]
        while not first.future.done():
            yield Shown(doubts + progress(jobs))
            wait([first.future], PERIOD)
        if first.elapsed() and not jobs[1].future.done():
            image = Image.fromarray(first.future.result().image)
            yield Shown(
                doubts + progress(jobs), (image, image), "Both sides: direct inference, until the other is there."
            )
        while wait(both, PERIOD).not_done:
            yield Shown(doubts + progress(jobs))
        left, right = (future.result() for future in both)
        workload = jobs[1].plan.run.workload
        yield Shown(
            doubts + "<p>Done. Move the slider.</p>",
            (Image.fromarray(left.image), Image.fromarray(right.image)),
            f"**Left: direct**, {duration(left.seconds)}. **Right: {self.title(choice)}**, {duration(right.seconds)}. "
            f"{choice.height}x{choice.width} pixels (height x width), {self.times(choice)} times the training area.",
            recipe_yaml(self.studio.overrides, workload),
            python_lines(self.studio.overrides, workload, choice),
        )

    def _prompt(self, choice: Choice) -> tuple[str, str, Any]:
        return choice.prompt, self.studio.base.model.name, self.studio.pipe.tokenizer

    def times(self, choice: Choice) -> str:
        """Area relative to the training area."""
        height, width = self.studio.training
        return f"{choice.height * choice.width / (height * width):.3g}"

    def title(self, choice: Choice) -> str:
        """The method, with the parts of ScaleCrafter that are not as its settings say."""
        usual = self.parts(choice.method, choice.height, choice.width)
        if choice.parts is None or usual is None or choice.parts == usual:
            return choice.method
        changed = [name for name in vars(usual) if getattr(usual, name) != getattr(choice.parts, name)]
        words = [f"{'with' if getattr(choice.parts, name) else 'without'} {spoken(name)}" for name in changed]
        return f"{choice.method} {', '.join(words)}"


def spoken(part: str) -> str:
    """A field of `Parts` in words."""
    return {"redilation": "re-dilation"}.get(part, part.replace("_", " "))


def progress(jobs: list[Job]) -> str:
    """HTML: which image is drawn, how far both are, and the seconds that are left."""
    pending = [job for job in jobs if not job.future.done()]
    if not pending:
        return "<p>Finishing</p>"
    current = pending[0]
    if current.started is None and current.ahead and current is jobs[0]:
        return f"<p>Waiting for {current.ahead} other image{'s' * (current.ahead > 1)} to be drawn.</p>"
    left = sum(job.remaining() for job in pending)
    passed = sum(job.elapsed() for job in jobs)
    share = passed / (passed + left) if passed + left else 0.0
    text = f"Drawing {current.choice.method}: {100 * current.share():.0f}%. About {duration(left)} left."
    return f'<progress max="100" value="{100 * share:.0f}" aria-label="Drawing"></progress><p>{text}</p>'


def duration(seconds: float) -> str:
    """In the largest unit that fits."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"


def warning(sentence: str) -> str:
    """HTML of a sentence that somebody has to act on."""
    text = escape(sentence.rstrip("."))
    return f'<p class="warning">{text[:1].upper()}{text[1:]}.</p>'
