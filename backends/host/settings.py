"""What a host can set: environment variables with the prefix PLAYGROUND_, or flags of the same names."""

from __future__ import annotations

import ipaddress
import os
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

import platformdirs
from pydantic import Field, SecretStr, ValidationError, ValidationInfo, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict, SettingsError

from backends.adapters import registry
from backends.adapters.openai.remote_engines import BadEngines, RemoteEngine, read_engines
from backends.core.nearest import nearest, quoted
from backends.engine.limits import Rules
from backends.host.problems import problems_here

APP = "qwen-playground"
PREFIX = "PLAYGROUND_"


def _on_space() -> bool:
    """A Hugging Face Space runs the app behind its own front door, which reaches it over the network."""
    return "SPACE_ID" in os.environ


Words = Annotated[tuple[str, ...], NoDecode]
"""Several words, which a host writes with commas between them."""


class Settings(BaseSettings):
    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        cli_kebab_case=True,
        cli_implicit_flags=True,
        cli_prog_name="python app.py",
        cli_exit_on_error=False,
        extra="forbid",
        frozen=True,
    )

    host: str = Field(
        default_factory=lambda: "0.0.0.0" if _on_space() else "127.0.0.1",  # noqa: S104 (a Space is a container)
        description="Address to listen on. Beyond this machine it needs a sign-in or --open-to-network.",
    )
    port: int = Field(7860, ge=0, le=65535, description="Port to listen on; 0 takes a free one.")
    open_to_network: bool = Field(
        default_factory=_on_space,
        description="Allow listening on an address that other machines can reach though nobody has to sign in.",
    )
    users: Path | None = Field(
        None, description="File with the names and passwords of those who may sign in; python -m tools.users makes it."
    )
    class_code: SecretStr = Field(
        SecretStr(""),
        description="A word of at least 6 characters that lets a whole class in; each seat gets a nickname.",
    )
    huggingface: bool = Field(
        False, description="On a Space: visitors sign in with Hugging Face; needs 'hf_oauth: true' in the Spacefile."
    )
    trusted_hosts: Words = Field(
        (), description="Host names under which the playground may be reached, separated by commas; empty is all."
    )
    frame_hosts: Words = Field(
        default_factory=lambda: ("https://huggingface.co",) if _on_space() else (),
        description="Origins of sites that may show the playground in a frame, separated by commas; empty is none.",
    )
    answers_per_hour: int = Field(
        default_factory=lambda: 60 if _on_space() else 0,
        ge=0,
        description="Answers that one person may have in an hour; each language counts. 0 is no limit.",
    )
    tokens_per_hour: int = Field(
        default_factory=lambda: 60_000 if _on_space() else 0,
        ge=0,
        description="Tokens that one person's answers may have in an hour, thoughts included. 0 is no limit.",
    )
    longest_answer: int = Field(0, ge=0, description="Tokens that one answer may have. 0 is no limit.")
    longest_prompt: int = Field(
        0, ge=0, description="Tokens that a model may be given to read at once. 0 is its context."
    )
    pictures_per_message: int = Field(0, ge=0, description="Pictures that one message may have. 0 is 8.")
    people_at_once: int = Field(
        0,
        ge=0,
        description="People who may use the playground at once; who has asked for 10 min is one. 0 is no limit.",
    )
    limits_storage: str = Field(
        "memory://",
        pattern=r"^(memory|redis|rediss)://",
        description="Where answers and tokens are counted: memory://, or redis://HOST:6379 for several processes.",
    )
    raw_control_tokens: bool = Field(
        False,
        description="Let what people type reach the model with its control tokens: for a lesson on chat templates.",
    )
    grace_seconds: int = Field(
        20, ge=0, le=600, description="How long running answers may go on when the playground is stopped."
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
            with suppress(BadEngines):  # told in full by `problems_here`
                remote = read_engines(file)
        names = ("auto", *registry.ENGINES, *(entry.name for entry in remote))
        if value not in names:
            raise ValueError(f"must be one of {', '.join(names)}{nearest(value, names)}")
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

    @field_validator("trusted_hosts", "frame_hosts", mode="before")
    @classmethod
    def _words(cls, value: Any) -> Any:
        return tuple(value.replace(",", " ").split()) if isinstance(value, str) else value

    @field_validator("class_code")
    @classmethod
    def _hard_to_guess(cls, value: SecretStr) -> SecretStr:
        if 0 < len(value.get_secret_value().strip()) < 6:
            raise ValueError("must have at least 6 characters, or be empty")
        return SecretStr(value.get_secret_value().strip())

    @model_validator(mode="after")
    def _network_on_purpose(self) -> Settings:
        if not self.is_loopback and not self.open_to_network and not self.has_sign_in:
            raise ValueError(
                f"listening on {self.host} lets other machines in, and nobody has to sign in; set --class-code or"
                " --users, or add --open-to-network if that is meant"
            )
        if self.huggingface and not _on_space():
            raise ValueError("signing in with Hugging Face works on a Space alone; use --users or --class-code")
        return self

    @cached_property
    def remote(self) -> tuple[RemoteEngine, ...]:
        """The engines elsewhere that the host lists. Raises `BadEngines`."""
        return read_engines(self.engines) if self.engines else ()

    @property
    def has_sign_in(self) -> bool:
        return self.users is not None or bool(self.class_code.get_secret_value()) or self.huggingface

    @property
    def rules(self) -> Rules:
        return Rules(**{name: getattr(self, name) for name in Rules.__slots__})

    @property
    def is_loopback(self) -> bool:
        return self.host == "localhost" or ipaddress.ip_address(self.host).is_loopback


FIELDS = Settings.model_fields


class BadSettings(Exception):
    """Everything that is wrong with the settings; each problem one line that says what to do."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


def read_settings(arguments: list[str]) -> Settings:
    """From the environment and the command line, checked against this machine. Raises `BadSettings`."""
    problems = [
        _unknown(name, "setting", name.removeprefix(PREFIX), {field: PREFIX + field.upper() for field in FIELDS})
        for name in os.environ
        if name.startswith(PREFIX) and name.removeprefix(PREFIX).lower() not in FIELDS
    ]
    values: dict[str, Any] = {"_cli_parse_args": arguments}
    try:
        settings = Settings(**values)
    except ValidationError as exc:
        raise BadSettings(problems + [_line(fault) for fault in exc.errors()]) from exc
    except SettingsError as exc:
        flags = {field.replace("_", "-"): f"--{field.replace('_', '-')}" for field in FIELDS}
        strays = [word for word in (argument.partition("=")[0] for argument in arguments) if word.startswith("--")]
        unknown = [word for word in strays if word[2:].removeprefix("no-") not in flags]
        told = [_unknown(word, "flag", word[2:], flags) for word in unknown] or [str(exc).splitlines()[0]]
        raise BadSettings([*problems, *told]) from exc
    if problems := problems + problems_here(settings):
        raise BadSettings(problems)
    return settings


def _unknown(name: str, kind: str, asked: str, known: dict[str, str]) -> str:
    return f"{quoted(name)}: there is no such {kind}; remove it, or see python app.py --help{nearest(asked, known)}"


def _line(fault: Any) -> str:
    name = "_".join(str(part) for part in fault["loc"])
    given = f" (given: {quoted(str(fault['input']))})" if name else ""
    return f"{name or 'settings'}: {fault['msg'].removeprefix('Value error, ')}{given}"
