"""The page: its controls, and which of them call which handler."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import gradio as gr

from experiments.demo.choice import OURS, method_names, method_summary
from experiments.demo.handlers import Handlers, spoken
from experiments.demo.parts import Parts
from experiments.demo.recipe import FILE
from experiments.demo.sizes import AREAS, ASPECTS
from experiments.demo.studio import Studio
from experiments.demo.words import examples

INTRODUCTION = """# ScaleCrafter

Images larger than the model was trained for, with the same prompt and seed on both sides: left by direct inference,
which repeats objects, and right by a method that does something about it.
"""
PARTS = {
    "redilation": "Convolutions see further; without it the method is off",
    "cutoff": "Dilation ends before the last steps",
    "dispersion": "Larger kernels instead of widely spread ones",
    "noise_damping": "Guidance from a base that dilates the inner layers only",
}
CSS = """
.gradio-container { max-width: 1280px !important; margin: auto; }
.warning { border-left: 4px solid #d55e00; padding-left: 8px; }
#yaml textarea, #python textarea { font-family: var(--font-mono); }
progress { appearance: none; width: 100%; height: 12px; border: none; border-radius: 6px; overflow: hidden; }
progress, progress::-webkit-progress-bar { background: #d4d4d8; }
progress::-webkit-progress-value { background: #2563eb; }
progress::-moz-progress-bar { background: #2563eb; }
"""
QUIET: Any = {"show_progress": "hidden", "api_visibility": "private"}  # of every event


@dataclass
class Controls:
    """What decides an image, in the order in which handlers take it."""

    prompt: Any
    seed: Any
    steps: Any
    method: Any
    height: Any
    width: Any
    parts: list[Any]

    def all(self) -> list[Any]:
        return [self.prompt, self.seed, self.steps, self.method, self.height, self.width, *self.parts]


def build_page(studio: Studio) -> gr.Blocks:
    """The page of a studio, with a queue; not started."""
    handlers, prompts = Handlers(studio), examples(studio.base.model.name)
    with gr.Blocks(title="ScaleCrafter", analytics_enabled=False, delete_cache=(600, 3600)) as page:
        gr.Markdown(INTRODUCTION)
        prompt = gr.Textbox(prompts[0], label="Prompt", max_length=1000, elem_id="prompt")
        gr.Examples(prompts, prompt, label="Prompts that this model knows")
        with gr.Row():
            draw = gr.Button("Draw", variant="primary", elem_id="draw")
            cancel = gr.Button("Cancel", elem_id="cancel")
        estimate, status = gr.HTML(elem_id="estimate"), gr.HTML(elem_id="status")
        with gr.Row():
            with gr.Column(scale=3, min_width=320):
                pair = gr.ImageSlider(label="Left: direct. Right: the method", format="png", elem_id="pair")
                caption = gr.Markdown(elem_id="caption")
            with gr.Column(scale=2, min_width=320):
                controls, area, aspect = add_controls(studio, handlers, prompt)
        with gr.Accordion("The right image without this page", open=False):
            gr.Markdown(f"Save the settings as `{FILE}`, and run the lines from the folder of this project.")
            yaml, python = (
                gr.Textbox(label=label, lines=8, max_lines=16, buttons=["copy"], interactive=False, elem_id=name)
                for label, name in ((FILE, "yaml"), ("Python", "python"))
            )
        shown = [status, pair, caption, yaml, python]
        connect_controls(handlers, controls, (area, aspect))
        connect_drawing(handlers, page, controls, (draw, cancel), estimate, shown)
    return page.queue(default_concurrency_limit=None)


def add_controls(studio: Studio, handlers: Handlers, prompt: Any) -> tuple[Controls, Any, Any]:
    """All controls but the prompt, at four times the training area; and area and aspect, which set the size."""
    names, size = method_names(), handlers.size(AREAS[0], ASPECTS[0])
    assert size is not None
    usual = handlers.parts(OURS, *size)
    method = gr.Dropdown(names, value=OURS, label="Method", info=method_summary(OURS), elem_id="method")
    with gr.Group():
        gr.Markdown("**Parts of ScaleCrafter**: switching one draws the right image again", padding=True)
        parts = [
            gr.Checkbox(
                bool(usual and getattr(usual, name)),
                label=spoken(name).capitalize(),
                info=info,
                interactive=usual is not None,
                elem_id=name,
            )
            for name, info in PARTS.items()
        ]
    area = gr.Radio([(f"{value:g}x", value) for value in AREAS], value=AREAS[0], label="Times the training area")
    aspect = gr.Dropdown(
        list(ASPECTS), value=ASPECTS[0], label="Aspect, width to height", allow_custom_value=True, elem_id="aspect"
    )
    with gr.Row():
        height = gr.Number(size[0], label="Height in pixels", precision=0, min_width=120, elem_id="height")
        width = gr.Number(size[1], label="Width in pixels", precision=0, min_width=120, elem_id="width")
    with gr.Row():
        seed = gr.Number(0, label="Seed", precision=0, min_width=120, elem_id="seed")
        steps = gr.Number(studio.base.sampler.steps, label="Steps", precision=0, min_width=120, elem_id="steps")
    return Controls(prompt, seed, steps, method, height, width, parts), area, aspect


def connect_controls(handlers: Handlers, controls: Controls, shape: tuple[Any, Any]) -> None:
    """Let area and aspect set the size, and method and size the switches."""

    def resized(area: Any, aspect: Any) -> list[Any]:
        return list(handlers.size(area, aspect) or (gr.skip(), gr.skip()))

    def switched(method: Any, height: Any, width: Any) -> list[Any]:
        usual = handlers.parts(method, height, width)
        switches = [gr.Checkbox(value, interactive=True) for value in vars(usual or Parts()).values()]
        if usual is None:
            switches = [gr.Checkbox(interactive=False) for _ in PARTS]
        return [gr.Dropdown(info=method_summary(method)), *switches]

    size = [controls.height, controls.width]
    gr.on([each.input for each in shape], resized, list(shape), size, **QUIET)
    gr.on(
        [controls.method.change, *(side.change for side in size)],
        switched,
        [controls.method, *size],
        [controls.method, *controls.parts],
        trigger_mode="always_last",
        **QUIET,
    )


def connect_drawing(
    handlers: Handlers,
    page: gr.Blocks,
    controls: Controls,
    buttons: tuple[Any, Any],
    estimate: Any,
    shown: list[Any],
) -> None:
    """Let the buttons, and each switch, draw or stop, and everything renew the estimate."""
    values, (draw, cancel) = controls.all(), buttons

    def drawn(request: gr.Request, *given: Any) -> Iterator[list[Any]]:
        for update in handlers.draw(str(request.session_hash), *given):
            yield [gr.skip() if value is None else value for value in vars(update).values()]

    def stop(request: gr.Request) -> None:
        handlers.cancel(str(request.session_hash))

    def leave(request: gr.Request) -> None:
        handlers.leave(str(request.session_hash))

    redraw = [draw.click, controls.prompt.submit, *(part.input for part in controls.parts)]
    gr.on(redraw, drawn, values, shown, trigger_mode="multiple", **QUIET).then(
        handlers.estimate, values, estimate, **QUIET
    )
    cancel.click(stop, queue=False, **QUIET)
    page.unload(leave)
    gr.on(
        [page.load, *(each.change for each in values)],
        handlers.estimate,
        values,
        estimate,
        trigger_mode="always_last",
        **QUIET,
    )
