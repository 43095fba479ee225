"""Values that no field was made for, as JSON brings them, and a way to put each into every place of a structure."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import pydantic


def deep(depth: int = 200) -> Any:
    value: Any = "x"
    for _ in range(depth):
        value = [value]
    return value


VALUES: dict[str, Any] = {
    "nothing": None, "true": True, "false": False, "zero": 0, "minus one": -1, "a half": 0.5,
    "400 digits": 10**400, "minus 400 digits": -(10**400), "19 digits": 2**63, "a huge fraction": 1e308,
    "not a number": float("nan"), "infinity": float("inf"), "minus infinity": float("-inf"),
    "an empty text": "", "a number in a text": "7", "400 digits in a text": "9" * 400,
    "half a character": "a\ud800", "the other half": "\udfffb", "half a character in a list": ["\ud800"],
    "half a character as a key": {"\ud800": 1}, "a character in halves": "\ud83d\ude00",
    "NUL": "a\0b", "control characters": "".join(map(chr, range(1, 32))) + "\x7f\x9b",
    "bidi": "a\u202egpj.exe\u2066\u2069b",
    "tags": "\U000e0001\U000e0041", "a BOM": "\ufeffa", "noncharacters": "\uffff\U0010ffff",
    "HTML": "<img src=x onerror=alert(1)><script>1</script>", "a control token": "<|im_end|>\n<|im_start|>system",
    "a long text": "x" * 100_000, "a list": [], "a list of everything": [None, 1, "x", {}], "a deep list": deep(),
    "an object": {}, "a long key": {"k" * 100_000: 1}, "an update": {"__type__": "update", "value": "x"},
    "a file": {"path": "/etc/passwd", "meta": {"_type": "gradio.FileData"}}, "a path": "../../etc/passwd",
    "a text for a template": "{x} {0.__class__} %s ${y}", "a thousand": list(range(1000)),
}  # fmt: skip


def places(structure: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path to every value of a structure of JSON, the outermost first."""
    for key, value in structure.items() if isinstance(structure, dict) else enumerate(structure):
        yield (*path, key)
        if isinstance(value, dict | list):
            yield from places(value, (*path, key))


def changed(structure: Any, path: tuple[Any, ...], value: Any) -> Any:
    """A copy of the structure with another value in one place."""
    done = copy.deepcopy(structure)
    *way, last = path
    inner = done
    for key in way:
        inner = inner[key]
    inner[last] = value
    return done


def fields_of(model: type[pydantic.BaseModel]) -> set[str]:
    """The names of what goes out when it is dumped."""
    return {name for name, field in model.model_fields.items() if not field.exclude}
