"""What stands between a visitor and this server: how many proxies of our own there are, their word counts, and nobody
else's."""

from __future__ import annotations

from starlette.types import Scope

_PREFIXES = (b"x-forwarded", b"x-original-", b"x-rewrite-")
_NAMES = frozenset({b"forwarded", b"x-real-ip", b"x-client-ip", b"x-host", b"x-http-host-override", b"x-gradio-server"})
"""In which somebody may say who asks, or for what; gradio believes some of them from everybody."""


def as_asked(scope: Scope, proxies: int) -> Scope:
    """The scope of a request with the address, the host name and the scheme that the visitor used, and without any
    header that says so otherwise.

    Of the addresses that count is the one that the outermost of our `proxies` saw; what stands before it anybody can
    write. A proxy says the host and the scheme last, if it says them.
    """
    told = [header for header in scope["headers"] if _tells(header[0])]
    kept = [header for header in scope["headers"] if not _tells(header[0])]
    asked = {**scope, "headers": kept}
    if proxies:
        client = scope.get("client")
        addresses = [*_listed(told, b"x-forwarded-for"), client[0] if client else ""]
        asked["client"] = (addresses[-1 - proxies :][0], 0)
        if hosts := _listed(told, b"x-forwarded-host"):
            host = (b"host", hosts[-1].encode("latin-1"))
            asked["headers"] = [host, *(header for header in kept if header[0] != b"host")]
        if (schemes := _listed(told, b"x-forwarded-proto")) and schemes[-1] in ("http", "https"):
            asked["scheme"] = schemes[-1]
    return asked


def _tells(name: bytes) -> bool:
    name = name.lower().replace(b"_", b"-")
    return name.startswith(_PREFIXES) or name in _NAMES


def _listed(headers: list[tuple[bytes, bytes]], name: bytes) -> list[str]:
    """The entries of all lines of a header, in order."""
    values = [value.decode("latin-1") for found, value in headers if found.lower() == name]
    return [part.strip() for part in ",".join(values).split(",") if part.strip()]
