"""The one builder that turns a TabSpec into a screen. Makes components and names them; what they do is `handlers`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import gradio as gr

from backends.catalog.cards import Card
from backends.engine.engine import Engine
from ui.conversation.choices import MAX_BUDGET
from ui.conversation.formulas import MARKS
from ui.conversation.stage import stage
from ui.conversation.tabs import MAX_TARGETS, Option, TabSpec, languages
from ui.conversation.texts import speaker
from ui.conversation.transcript import Transcript
from ui.conversation.words import MAX_MESSAGE
from ui.screen.controls import sampling_controls, source_line
from ui.screen.labels import label
from ui.screen.picture_panel import PicturePanel, build_stage, visual_tokens_slider

STORAGE_KEY = "qwen-playground"  # gradio wants one; what is stored is the visitor's own, in their own browser
LATEX = [{"left": left, "right": right, "display": display} for left, right, display in MARKS]


@dataclass(frozen=True, eq=False)
class Panel:
    """The components of one tab, by name. `official`: the sampling values that the sliders are held against;
    `growing`: the answer that is being written, in the visitor's browser beside the conversation as it was before."""

    spec: TabSpec
    transcript: gr.State
    saved: gr.BrowserState
    growing: gr.BrowserState
    official: gr.State
    chatbot: gr.Chatbot
    composer: gr.Textbox
    answer_now: gr.Button
    context: gr.HTML
    engine: gr.Dropdown
    model: gr.Dropdown
    model_info: gr.Markdown
    thinking: gr.Checkbox
    thinking_kind: gr.Markdown
    budget: gr.Slider
    sampling: dict[str, gr.Slider | gr.Number]
    source: gr.Markdown
    reset: gr.Button
    options: dict[str, Any]
    system: gr.Textbox
    export_markdown: gr.Button
    export_json: gr.Button
    import_json: gr.Button
    clear: gr.Button
    payload: gr.Textbox
    pictures: PicturePanel | None = None

    @property
    def kept(self) -> list[gr.BrowserState]:
        """What lies in the visitor's browser."""
        return [self.saved, self.growing, *([self.pictures.album] if self.pictures else [])]

    @property
    def everything(self) -> set[Any]:
        """What the handlers read."""
        tray = {self.pictures.tray} if self.pictures else set()
        return {self.transcript, self.official, self.composer, *tray, *self.settings}

    @property
    def screen(self) -> list[Any]:
        """What a change of the conversation touches."""
        own: list[Any] = [self.transcript, self.chatbot, self.composer, self.answer_now, self.context]
        own += [self.saved, self.growing]
        if shelf := self.pictures:
            own += [shelf.stage, shelf.tray, shelf.album, shelf.visual_tokens]
        return own

    @property
    def settings(self) -> list[Any]:
        """Every control whose value is the visitor's choice."""
        own = [*self.sampling.values(), *self.options.values()]
        if self.pictures:
            own.append(self.pictures.visual_tokens)
        return [self.engine, self.model, self.thinking, self.budget, *own, self.system]


def build_panel(spec: TabSpec, engines: Mapping[str, Engine]) -> Panel:
    """Lays out one tab within the Blocks context that is open, but for what is `kept`, which has to be rendered
    outside of all tabs.

    The controls stand at the first engine's first card; the page asks for this machine's own choice when it opens.
    """
    models = next(iter(engines.values())).models
    card = _first_card(models.catalog.cards, spec)
    official = card.official(spec.id, card.thinks(card.thinking.default), images=spec.pictures)
    say = speaker("en")
    if spec.pictures:
        with gr.Row(elem_classes="beside"):
            shelf = build_stage(spec.id, STORAGE_KEY, stage([], say))
            chatbot, answer_now, composer, context = _talk(spec)
    else:
        chatbot, answer_now, composer, context = _talk(spec)
    with gr.Sidebar(position="right", open=False, width=340, elem_classes="settings"):
        options: dict[str, Any] = {}
        if spec.options:
            with gr.Accordion(label("section_task")):
                options = {option.name: _option(spec, option) for option in spec.options}
                if spec.pictures:
                    visual_tokens = visual_tokens_slider(card.eyes)
        with gr.Accordion(label("section_model")):
            engine = gr.Dropdown(
                [(engine.label, name) for name, engine in engines.items()],
                value=next(iter(engines)),
                label=label("engine"),
                interactive=True,
                visible=len(engines) > 1,
            )
            model = gr.Dropdown(
                [("", "")], value="", label=label("model"), show_label=False, interactive=True, filterable=True
            )
            model_info = gr.Markdown(elem_classes="quiet")
        with gr.Accordion(label("section_thinking")):
            rule = card.thinking
            thinking = gr.Checkbox(
                value=card.thinks(rule.default), label=label("thinking_switch"), interactive=rule.kind != "always"
            )
            thinking_kind = gr.Markdown(say(f"thinking_kind_{rule.kind}"), elem_classes="quiet")
            budget = gr.Slider(0, MAX_BUDGET, 0, step=64, label=label("budget"), info=label("budget_hint"), buttons=[])
        with gr.Accordion(label("section_sampling"), open=False):
            reset = gr.Button(label("reset_sampling"), size="sm")
            sampling = sampling_controls(official.values, models.capabilities, models.catalog.longest_answer)
            source = gr.Markdown(source_line(official, say), elem_classes="quiet")
        with gr.Accordion(label("section_conversation"), open=False):
            system = gr.Textbox(spec.system, label=label("system"), info=label("system_hint"), lines=2, max_lines=12)
            with gr.Row():
                export_markdown = gr.Button(label("export_markdown"), size="sm")
                export_json = gr.Button(label("export_json"), size="sm")
            with gr.Row():
                import_json = gr.Button(label("import_json"), size="sm")
                clear = gr.Button(label("clear"), size="sm", variant="stop")
    return Panel(
        spec=spec,
        transcript=gr.State(Transcript()),
        saved=_kept(spec.id),
        growing=_kept(f"{spec.id}-growing"),
        official=gr.State(official.values.model_dump()),
        chatbot=chatbot,
        composer=composer,
        answer_now=answer_now,
        context=context,
        engine=engine,
        model=model,
        model_info=model_info,
        thinking=thinking,
        thinking_kind=thinking_kind,
        budget=budget,
        sampling=sampling,
        source=source,
        reset=reset,
        options=options,
        system=system,
        export_markdown=export_markdown,
        export_json=export_json,
        import_json=import_json,
        clear=clear,
        payload=gr.Textbox(visible=False),
        pictures=PicturePanel(*shelf, visual_tokens) if spec.pictures else None,
    )


def _kept(name: str) -> gr.BrowserState:
    return gr.BrowserState(None, storage_key=f"{STORAGE_KEY}-{name}", secret=STORAGE_KEY, render=False)


def _first_card(cards: Sequence[Card], spec: TabSpec) -> Card:
    """The first that can do what the tab is for."""
    return next((card for card in cards if card.eyes or not spec.pictures), cards[0])


def _talk(spec: TabSpec) -> tuple[gr.Chatbot, gr.Button, gr.Textbox, gr.HTML]:
    """The column with the conversation."""
    with gr.Column(elem_classes="talk"):
        chatbot = gr.Chatbot(
            label=label("transcript"),
            show_label=False,
            container=False,
            elem_classes=["transcript", "columns"] if spec.columns else ["transcript"],
            elem_id=f"transcript-{spec.id}",
            height="100%",
            layout="bubble",
            buttons=[],
            editable="user",
            render_markdown=False,  # what the page shows is HTML of `markdown`, which gradio's own sanitiser sees too
            latex_delimiters=LATEX,
            placeholder=speaker("en")(f"greeting_{spec.id}"),
            examples=[{"text": example.text} for example in spec.examples],
        )
        answer_now = gr.Button(label("answer_now"), visible=False, size="sm", elem_classes="answer-now")
        composer = gr.Textbox(
            label=label("composer"),
            show_label=False,
            placeholder=label("composer_hint_image" if spec.pictures else "composer_hint"),
            elem_id=f"composer-{spec.id}",
            elem_classes="composer",
            lines=1,
            max_lines=8,
            max_length=MAX_MESSAGE,
            submit_btn=True,
            stop_btn=False,
            autofocus=spec.id == "chat",
        )
        context = gr.HTML("", elem_classes="context")
    return chatbot, answer_now, composer, context


def _option(spec: TabSpec, option: Option) -> Any:
    """The control of one of the tab's own options."""
    name = label(f"{spec.id}_{option.name}")
    match option.kind:
        case "radio":
            choices = [(str(label(f"{spec.id}_{choice}")), choice) for choice in option.choices]
            return gr.Radio(choices, value=option.default, label=name)
        case "dropdown":
            return gr.Dropdown(list(option.choices), value=option.default, label=name)
        case "languages":
            choices = [(language.label, code) for code, language in languages().items()]
            return gr.Dropdown(
                choices, value=list(option.default), label=name, multiselect=True, max_choices=MAX_TARGETS
            )
        case "text":
            return gr.Textbox("", label=name, placeholder=label(f"{spec.id}_{option.name}_hint"), lines=1, max_lines=6)
