"""Sampling fields and sliders: made from the bounds of the model that checks them, marked 'official' or 'changed'."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gradio as gr

from backends.catalog.cards import OfficialSampling
from backends.core.types import Capabilities, Sampling
from ui.conversation.choices import bounds
from ui.conversation.render import Say
from ui.conversation.texts import speaker
from ui.screen.labels import label

STEPS = {"temperature": 0.05, "top_p": 0.01, "min_p": 0.01, "presence_penalty": 0.1, "repetition_penalty": 0.01}


def sampling_controls(
    official: Sampling, capabilities: Capabilities, longest_answer: int = 0
) -> dict[str, gr.Slider | gr.Number]:
    """One control a Sampling field, in the order of the fields; those that the engine cannot honour are disabled.

    `longest_answer`: tokens that the host allows; 0 is no limit.
    """
    controls: dict[str, gr.Slider | gr.Number] = {}
    for name in Sampling.model_fields:
        usable = name in capabilities.sampling
        _, low, high = bounds(name)
        if name == "seed":
            controls[name] = gr.Number(
                label=label("sampling_seed"), info=label("seed_hint"), precision=0, interactive=usable, minimum=low,
                maximum=high,
            )  # fmt: skip
            continue
        if name == "max_new_tokens":
            high = longest_answer or high
        controls[name] = gr.Slider(
            minimum=low if name != "top_p" else STEPS[name],
            maximum=high,
            step=STEPS.get(name, 1),
            value=getattr(official, name),
            label=label(f"sampling_{name}"),
            info=mark(name, getattr(official, name), getattr(official, name), capabilities, speaker("en")),
            interactive=usable,
            buttons=[],
        )
    return controls


def read_sampling(values: Mapping[str, Any]) -> dict[str, Any]:
    """What the controls stand at, as `check_sampling` takes it: whole numbers of whole-number fields as int."""
    given = {}
    for name, value in values.items():
        kind, _, _ = bounds(name)
        given[name] = as_whole(value) if kind is int else value
    return given


def as_whole(value: Any) -> Any:
    """A whole number as int, which sliders may send as a fraction of nothing; anything else as it is, to be refused."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def changed(values: Mapping[str, Any], official: Mapping[str, Any]) -> dict[str, Any]:
    """The fields that stand at something else than the official value."""
    return {name: value for name, value in values.items() if value is not None and value != official.get(name)}


def mark(name: str, value: object, official: object, capabilities: Capabilities, say: Say) -> str:
    """The line under a slider."""
    if name not in capabilities.sampling:
        return say("not_honoured", engine=capabilities.engine)
    where = say("official") if value == official else say("changed", value=official)
    return f"{where} · {say(f'help_{name}')}"


def source_line(official: OfficialSampling, say: Say) -> str:
    source = say("official_source", source=official.source)
    return source if official.verified else f"{source} ({say('not_verified')})"
