"""The tab about the playground itself: what is loaded, how busy it is, how fast answers come, what to change."""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from typing import Any

import gradio as gr
import psutil

from backends.engine.engine import Engine
from backends.engine.limits import Rules
from backends.engine.metrics import Answered
from ui.conversation.render import Say
from ui.conversation.texts import say_for, speaker
from ui.screen.labels import label
from ui.screen.status.advice import advice, median
from ui.screen.status.plot import line_plot
from ui.visitors.people import visitor

TICK_SECONDS = 3.0
AVERAGED = 50  # answers that the averages and the advice are of
GIGABYTE = 1e9
Update = dict[Any, Any]


class Status:
    """The components of the tab and what fills them. Only a page that looks at it asks again and again."""

    def __init__(self, engines: Mapping[str, Engine]) -> None:
        self._engines = engines
        self._room = next(iter(engines.values())).room
        with gr.Column(elem_classes="status"):
            self.summary = gr.HTML(self._summary(speaker("en")))
            self.plots = gr.HTML()
            self.averages = gr.HTML()
            with gr.Row(visible=False, elem_classes="hosts") as self.hosts:
                self.choice = gr.Dropdown([], label=label("status_unload_which"), interactive=True, scale=3)
                self.unload = gr.Button(label("status_unload"), size="sm", scale=1)
        self.timer = gr.Timer(TICK_SECONDS, active=False)

    @property
    def shown(self) -> list[Any]:
        return [self.summary, self.plots, self.averages, self.hosts, self.choice]

    def wire(self, own: gr.Tab, others: Iterable[gr.Tab], quick: dict[str, Any]) -> None:
        """Ticks while its own tab is looked at."""
        own.select(self.look, None, [*self.shown, self.timer], **quick)
        for other in others:
            other.select(None, None, self.timer, js="() => ({ active: false, __type__: 'update' })")
        self.timer.tick(self.tick, None, self.shown, **quick)
        self.unload.click(self.unloaded, [self.choice], self.shown, **quick)

    def look(self, request: gr.Request) -> Update:
        return self.tick(request) | {self.timer: gr.Timer(active=True)}

    def tick(self, request: gr.Request) -> Update:
        say, recent = say_for(request), self._room.metrics.recent
        update: Update = {
            self.summary: self._summary(say),
            self.plots: _plots(recent, say),
            self.averages: _averages(recent[-AVERAGED:], say) + _limits(self._room.limits.rules, say),
        }
        if visitor(request).host:
            names = [(f"{card} · {engine}", f"{engine}/{card}") for engine, card in self._loaded()]
            update |= {self.hosts: gr.update(visible=bool(names)), self.choice: gr.update(choices=names)}
        return update

    def unloaded(self, chosen: str | None, request: gr.Request) -> Update:
        """Unloads a model that answers nobody; whoever asks next loads it again."""
        if visitor(request).host and chosen:
            for name, engine in self._engines.items():
                for model in engine.models.loaded():
                    if f"{name}/{model.card.id}" == chosen and model.line.running == 0:
                        model.unload()
        return self.tick(request) | {self.choice: gr.update(value=None)}

    def _loaded(self) -> list[tuple[str, str]]:
        own = ((name, engine) for name, engine in self._engines.items() if not engine.place)
        return [(name, model.card.id) for name, engine in own for model in engine.models.loaded()]

    def _summary(self, say: Say) -> str:
        memory, rows = psutil.virtual_memory(), []
        running = waiting = 0
        for engine in self._engines.values():
            for model in engine.models.loaded():
                running, waiting = running + model.line.running, waiting + model.line.waiting
                size = "" if engine.place else f"{model.need_bytes / GIGABYTE:.1f} GB"
                line = f"{model.line.running} / {model.line.capacity} · {model.line.waiting}"
                rows.append((model.card.name, engine.label, size, line))
        figures = (
            (say("status_people"), str(self._room.limits.people)),
            (say("status_running"), str(running)),
            (say("status_waiting"), str(waiting)),
            (say("status_processor"), f"{psutil.cpu_percent():.0f} %"),
            (say("status_memory"), f"{memory.used / GIGABYTE:.1f} / {memory.total / GIGABYTE:.0f} GB"),
        )
        cards = "".join(
            f"<div><b>{html.escape(value)}</b><span>{html.escape(name)}</span></div>" for name, value in figures
        )
        head = (say("model"), say("engine"), say("status_memory"), say("status_slots"))
        loaded = _table(head, rows) if rows else f"<p>{html.escape(say('status_nothing_loaded'))}</p>"
        told = list(advice(self._room.metrics.recent[-AVERAGED:], memory.percent / 100))
        advised = "".join(f"<li>{html.escape(say(a.key, **a.values))}</li>" for a in told)
        advised = f"<h2>{html.escape(say('status_advice'))}</h2><ul>{advised}</ul>" if told else ""
        return f"<div class='figures'>{cards}</div>{loaded}{advised}"


def _plots(answers: Sequence[Answered], say: Say) -> str:
    """Of every model a line for how fast it writes, and one for how soon it begins."""

    def series(what: str) -> dict[str, list[tuple[float, float]]]:
        lines: dict[str, list[tuple[float, float]]] = {}
        for answer in sorted(answers, key=lambda answer: answer.at):  # they come in the order in which they ended
            if (value := getattr(answer, what)) is not None:
                lines.setdefault(answer.model, []).append((answer.at, value))
        return lines

    speed = line_plot(say("status_speed"), series("tokens_per_s"))
    return f"<div class='plots'>{speed}{line_plot(say('status_first'), series('ttft_s'))}</div>"


def _averages(answers: Sequence[Answered], say: Say) -> str:
    """Medians by model over the last answers."""
    rows = []
    for model in sorted({answer.model for answer in answers}):
        own = [answer for answer in answers if answer.model == model]
        prompts = sum(answer.prompt_tokens for answer in own)
        cached = sum(answer.cached_tokens for answer in own) / prompts if prompts else 0.0
        rows.append(
            (
                model,
                str(len(own)),
                _number(median([s for answer in own if (s := answer.tokens_per_s) is not None])),
                _number(median([s for answer in own if (s := answer.ttft_s) is not None])),
                _number(median([answer.queue_s for answer in own])),
                f"{100 * cached:.0f} %",
                str(sum(answer.outcome == "cancelled" for answer in own)),
                str(sum(answer.outcome in ("failed", "refused") for answer in own)),
            )
        )
    if not rows:
        return ""
    head = [say("model")] + [
        say(f"status_{name}") for name in ("answers", "speed", "first", "wait", "cached", "cancelled", "failed")
    ]
    return f"<h2>{html.escape(say('status_averages', n=len(answers)))}</h2>{_table(head, rows)}"


def _limits(rules: Rules, say: Say) -> str:
    """The host's limits, as far as there are any."""
    rows = [
        (say(f"limit_{field.name}"), f"{value:,}") for field in fields(rules) if (value := getattr(rules, field.name))
    ]
    return f"<h2>{html.escape(say('status_limits'))}</h2>{_table((), rows)}" if rows else ""


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    top = "".join(f"<th>{html.escape(cell)}</th>" for cell in head)
    body = "".join(f"<tr>{''.join(f'<td>{html.escape(cell)}</td>' for cell in row)}</tr>" for row in rows)
    thead = f"<thead><tr>{top}</tr></thead>" if head else ""
    return f"<div class='scrolls' tabindex='0'><table>{thead}<tbody>{body}</tbody></table></div>"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.1f}" if value < 100 else f"{value:.0f}"
