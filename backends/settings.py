"""What a host can set: environment variables with the prefix PLAYGROUND_, or flags of the same names."""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import Any, Literal

import platformdirs
from pydantic import Field, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

APP = "qwen-playground"


class Settings(BaseSettings):
    model_config = SettingsConfigDict(
        env_prefix="PLAYGROUND_",
        cli_parse_args=False,
        cli_kebab_case=True,
        cli_implicit_flags=True,
        cli_prog_name="python app.py",
        extra="forbid",
        frozen=True,
    )

    host: str = Field("127.0.0.1", description="Address to listen on. Beyond this machine it needs --open-to-network.")
    port: int = Field(7860, ge=0, le=65535, description="Port to listen on; 0 takes a free one.")
    open_to_network: bool = Field(False, description="Allow listening on an address that other machines can reach.")
    engine: Literal["auto", "llama_cpp", "scripted"] = Field(
        "auto", description="Engine that runs the models; 'scripted' answers from a script, for tests and benchmarks."
    )
    model: str = Field("", description="Card id of the model for every tab; empty is this machine's choice.")
    cache_dir: Path = Field(
        default_factory=lambda: platformdirs.user_cache_path(APP), description="Where the models' files are kept."
    )
    modelscope: bool = Field(False, description="Also fetch models from ModelScope where the hub does not have them.")
    offline: bool = Field(False, description="Fetch nothing from the model hub.")
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="How much is logged.")
    check_config: bool = Field(False, description="Check all settings, report every problem at once, and exit.")

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

    @property
    def is_loopback(self) -> bool:
        return self.host == "localhost" or ipaddress.ip_address(self.host).is_loopback


def read_settings(arguments: list[str]) -> Settings:
    """From the environment and the command line. Raises pydantic.ValidationError with all problems at once."""
    values: dict[str, Any] = {"_cli_parse_args": arguments}
    return Settings(**values)
