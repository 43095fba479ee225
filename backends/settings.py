"""What a host can set: environment variables with the prefix PLAYGROUND_, or flags of the same names."""

from __future__ import annotations

import ipaddress
import os
import socket
import tempfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import platformdirs
from pydantic import Field, ValidationError, ValidationInfo, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict, SettingsError

from backends import registry
from backends.catalog import Catalog
from backends.errors import UnknownModel
from backends.machine import Machine
from backends.remote_engines import BadEngines, RemoteEngine, read_engines

APP = "qwen-playground"
PREFIX = "PLAYGROUND_"
SETUP = {
    "llama_cpp": "llama.cpp is not installed; run 'make setup'",
    "transformers": "transformers is not installed; run 'make setup-transformers'",
}


def _on_space() -> bool:
    """A Hugging Face Space runs the app behind its own front door, which reaches it over the network."""
    return "SPACE_ID" in os.environ


class Settings(BaseSettings):
    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        cli_kebab_case=True,
        cli_implicit_flags=True,
        cli_prog_name="python app.py",
        extra="forbid",
        frozen=True,
    )

    host: str = Field(
        default_factory=lambda: "0.0.0.0" if _on_space() else "127.0.0.1",  # noqa: S104 (a Space is a container)
        description="Address to listen on. Beyond this machine it needs --open-to-network.",
    )
    port: int = Field(7860, ge=0, le=65535, description="Port to listen on; 0 takes a free one.")
    open_to_network: bool = Field(
        default_factory=_on_space, description="Allow listening on an address that other machines can reach."
    )
    proxies: int = Field(
        default_factory=lambda: int(_on_space()),
        ge=0,
        le=10,
        description="How many proxies of your own stand in front; they tell the address of a visitor without a cookie.",
    )
    engines: Path | None = Field(
        None, description="File that lists engines on other machines; examples/engines.toml says how."
    )
    engine: str = Field(
        "auto",
        description="Engine that runs the models: auto, llama_cpp, transformers, or the name of one in the file of"
        " --engines; 'scripted' answers from a script, for tests and benchmarks.",
    )
    engine_choice: bool = Field(True, description="Let visitors switch between the installed engines.")
    model: str = Field("", description="Card id of the model for every tab; empty is this machine's choice.")
    cache_dir: Path = Field(
        default_factory=lambda: platformdirs.user_cache_path(APP), description="Where the models' files are kept."
    )
    modelscope: bool = Field(False, description="Also fetch models from ModelScope where the hub does not have them.")
    offline: bool = Field(False, description="Fetch nothing over the network.")
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="How much is logged.")
    check_config: bool = Field(False, description="Check all settings, report every problem at once, and exit.")

    @field_validator("engine")
    @classmethod
    def _an_engine(cls, value: str, info: ValidationInfo) -> str:
        remote: tuple[RemoteEngine, ...] = ()
        if (file := info.data.get("engines")) is not None:
            with suppress(BadEngines):  # told in full by `_problems_here`
                remote = read_engines(file)
        names = ("auto", *registry.ENGINES, *(entry.name for entry in remote))
        if value not in names:
            raise ValueError(f"must be one of {', '.join(names)}")
        return value

    @field_validator("host")
    @classmethod
    def _an_address(cls, value: str) -> str:
        if value != "localhost":
            try:
                ipaddress.ip_address(value)
            except ValueError:
                raise ValueError("must be an IP address or 'localhost'") from None
        return value

    @model_validator(mode="after")
    def _network_on_purpose(self) -> Settings:
        if not self.is_loopback and not self.open_to_network:
            raise ValueError(f"listening on {self.host} lets other machines in; add --open-to-network if that is meant")
        return self

    @cached_property
    def remote(self) -> tuple[RemoteEngine, ...]:
        """The engines elsewhere that the host lists. Raises `BadEngines`."""
        return read_engines(self.engines) if self.engines else ()

    @property
    def is_loopback(self) -> bool:
        return self.host == "localhost" or ipaddress.ip_address(self.host).is_loopback


class BadSettings(Exception):
    """Everything that is wrong with the settings; each problem one line that says what to do."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


def read_settings(arguments: list[str]) -> Settings:
    """From the environment and the command line, checked against this machine. Raises `BadSettings`."""
    problems = [
        f"{name}: there is no such setting; remove it, or see python app.py --help"
        for name in os.environ
        if name.startswith(PREFIX) and name.removeprefix(PREFIX).lower() not in Settings.model_fields
    ]
    values: dict[str, Any] = {"_cli_parse_args": arguments}
    try:
        settings = Settings(**values)
    except ValidationError as exc:
        raise BadSettings(problems + [_line(fault) for fault in exc.errors()]) from exc
    except SettingsError as exc:
        raise BadSettings([*problems, str(exc).splitlines()[0]]) from exc
    if problems := problems + _problems_here(settings):
        raise BadSettings(problems)
    return settings


def _line(fault: Any) -> str:
    name = "_".join(str(part) for part in fault["loc"])
    given = f" (given: {str(fault['input'])[:40]})" if name else ""
    return f"{name or 'settings'}: {fault['msg'].removeprefix('Value error, ')}{given}"


def _problems_here(settings: Settings) -> list[str]:
    """What this machine cannot do of it. Looks at no network beyond its own ports and loads nothing."""
    problems = []
    try:
        catalog = Catalog.read()
        if settings.model:
            catalog.get(settings.model)
    except UnknownModel as exc:
        problems.append(f"model: {exc.message} The ids stand in backends/catalog.toml.")
    except ValueError as exc:
        problems.append(str(exc))
    try:
        taken = [entry.name for entry in settings.remote if entry.name in ("auto", *registry.ENGINES)]
        problems += [f"engines: {name}: means an engine of the playground's own; choose another name" for name in taken]
    except BadEngines as exc:
        problems += exc.problems
    engine = registry.automatic(Machine.detect()) if settings.engine == "auto" else settings.engine
    if engine in registry.ENGINES and not registry.installed(engine):
        problems.append(f"engine: {SETUP[engine]}")
    try:
        settings.cache_dir.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=settings.cache_dir):
            pass
    except OSError:
        problems.append("cache_dir: cannot be written to; set PLAYGROUND_CACHE_DIR to a folder that can")
    if settings.port and not _port_is_free(settings.host, settings.port):
        problems.append(f"port: {settings.port} is taken; stop what uses it, or choose another with --port")
    return problems


def _port_is_free(host: str, port: int) -> bool:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


def problems_elsewhere(settings: Settings) -> list[str]:
    """What the engines on other machines say when they are asked, all of them at once."""

    def ask(entry: RemoteEngine) -> str:
        with closing(registry.remote(entry, Catalog.read())) as models:
            return models.probe()

    with ThreadPoolExecutor(max(1, len(settings.remote))) as pool:
        told = zip(settings.remote, pool.map(ask, settings.remote), strict=True)
        return [f"engines: {entry.name}: {trouble}" for entry, trouble in told if trouble]
