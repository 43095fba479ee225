"""Engines on other machines, as a host lists them in `engines.toml`. Reads and checks the list; asks no server."""

from __future__ import annotations

import os
import tomllib
from collections import Counter
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from backends.adapters.openai.dialects import DIALECTS, HOSTS
from backends.core.nearest import nearest, quoted
from backends.machine.machine import THIS_MACHINE


class RemoteEngine(BaseModel):
    """One server that speaks OpenAI's chat completions. Times in seconds.

    `key_env` names the environment variable with its key. `models`: the server's name of a model -> the id of a card,
    for names that do not tell. `parallel`: how many requests it is sent at once.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(min_length=1, max_length=40)
    url: str
    dialect: str = "auto"
    key_env: str = Field("", pattern=r"^([A-Za-z_][A-Za-z0-9_]*)?$")
    models: dict[str, str] = {}
    parallel: int = Field(8, ge=1, le=4096)
    connect_seconds: float = Field(5, gt=0, le=120)
    first_token_seconds: float = Field(120, gt=0, le=3600)
    between_tokens_seconds: float = Field(60, gt=0, le=3600)

    @field_validator("url")
    @classmethod
    def _an_address(cls, value: str) -> str:
        parts = urlsplit(value)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("must be an address like http://gpu-box:8000/v1")
        if parts.username or parts.password:
            raise ValueError("must not hold a password: name the key's environment variable in key_env")
        return value.rstrip("/")

    @field_validator("dialect")
    @classmethod
    def _known(cls, value: str) -> str:
        if value != "auto" and value not in DIALECTS:
            raise ValueError(f"must be 'auto' or one of {', '.join(DIALECTS)}{nearest(value, DIALECTS.keys())}")
        return value

    @property
    def root(self) -> str:
        """The address without the '/v1' that every path begins with."""
        return self.url.removesuffix("/v1")

    @property
    def host(self) -> str:
        """Where the text goes; empty where that is this machine."""
        host = urlsplit(self.url).hostname or ""
        return "" if host in THIS_MACHINE else host

    @property
    def key(self) -> str:
        return os.environ.get(self.key_env, "") if self.key_env else ""

    @property
    def hosted(self) -> str:
        """The dialect that the host's name tells; empty where it tells none."""
        host = urlsplit(self.url).hostname or ""
        return next((dialect for end, dialect in HOSTS.items() if host == end or host.endswith(f".{end}")), "")


class BadEngines(ValueError):
    """Everything that is wrong with the list; each problem one line."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


def read_engines(file: Path) -> tuple[RemoteEngine, ...]:
    """The engines of the file, in its order. Raises `BadEngines`."""
    try:
        data = tomllib.loads(file.read_text("utf-8"))
    except OSError:
        raise BadEngines(["engines: the file cannot be read; check its name and its rights"]) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as exc:
        raise BadEngines([f"engines: the file is not TOML: {exc}"]) from exc
    strays = [name for name in data if name != "engine"]
    problems = [f"engines: there is no setting {quoted(name)}; each engine is an [[engine]]" for name in strays]
    rows = data.get("engine", [])
    engines: list[RemoteEngine] = []
    for number, row in enumerate(rows if isinstance(rows, list) else [rows], 1):
        who = f"engines: {_name(row) or f'number {number}'}"
        try:
            engine = RemoteEngine.model_validate(row)
        except ValidationError as exc:
            problems += [f"{who}: {'.'.join(map(str, e['loc']))}: {_sentence(e)}" for e in exc.errors()]
            continue
        if engine.key_env and not engine.key:
            problems.append(f"{who}: the environment variable {engine.key_env} is not set; set it, or remove key_env")
        engines.append(engine)
    problems += [f"engines: {name}: used twice" for name, n in Counter(e.name for e in engines).items() if n > 1]
    if problems:
        raise BadEngines(problems)
    return tuple(engines)


def _name(row: Any) -> str:
    return str(row.get("name", "")) if isinstance(row, dict) else ""


def _sentence(fault: Any) -> str:
    near = nearest(fault["loc"][-1], RemoteEngine.model_fields.keys()) if fault["type"] == "extra_forbidden" else ""
    return f"{fault['msg'].removeprefix('Value error, ')}{near}"
