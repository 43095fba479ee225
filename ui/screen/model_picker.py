"""The words of the model picker: what fits first, the rest with the reason why not, licences, what is loaded."""

from __future__ import annotations

from backends.catalog.cards import Card
from backends.catalog.choice import Ranked
from backends.engine.pool import ModelPool
from ui.conversation.markdown import as_words
from ui.conversation.render import Say


def choices(ranked: list[Ranked], own_choice: Card | None, say: Say, remote: bool = False) -> list[tuple[str, str]]:
    """(label, card id) pairs for the dropdown; the empty id is this machine's own choice, or a remote engine's."""
    name = own_choice.name if own_choice is not None else "-"
    rows = [(say("model_auto_remote" if remote else "model_auto", name=name), "")]
    return rows + [(f"{card.name} ⊘ {reason}" if reason else card.name, card.id) for card, _, reason in ranked]


def describe(models: ModelPool, task: str, card: Card, say: Say) -> str:
    """What the Model section says under the picker."""
    _, fit, reason = models.judge(card, task)
    engine, name = models.capabilities.engine, f"**{as_words(card.name)}**"  # a server may call its models anything
    if not models.ours:
        if not models.reached:
            name = f"**{as_words(models.engine)}**"
        lines = [say("model_line_remote", name=name, engine=engine, place=as_words(models.place or "localhost"))]
        if models.trouble is not None:
            reason = ""
            lines.append(f"⊘ {models.trouble.message} {models.trouble.hint}")
            if not models.reached:
                return "\n\n".join(lines)
    else:
        loaded = any(model.card.id == card.id for model in models.loaded())
        size, memory = f"{card.parameters:g} B", f"{fit.need_bytes / 1e9:.1f}"
        state = say("model_loaded" if loaded else "model_not_loaded")
        lines = [say("model_line", name=name, parameters=size, engine=engine, memory=memory, state=state)]
    if lacks := [key for key, there in _abilities(models).items() if not there]:
        lines.append(say("engine_lacks", what=", ".join(say(key) for key in lacks)))
    if reason:
        lines.append("⊘ " + say("model_cannot", reason=reason))
    elif fit.slow and fit.tokens_per_s:
        lines.append(say("model_slow", speed=f"{fit.tokens_per_s:.1f}"))
    lines.append(say("licence", licence=card.licence) + (f" ⚠ {card.licence_warning}" if card.licence_warning else ""))
    if note := say("demo_notice") if card.demo else card.note:
        lines.append(note)
    if not models.hub_reachable():
        lines.append(say("hub_unreachable"))
    return "\n\n".join(lines)


def _abilities(models: ModelPool) -> dict[str, bool]:
    can = models.capabilities
    return {"lacks_continuing": can.continues, "lacks_seed": can.seeded}
