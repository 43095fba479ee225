"""Several processes count together in a real Redis; where it goes away, nobody is locked out."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from backends.core.errors import LimitReached
from backends.engine.limits import Limits, Rules
from bench.processes import free_port
from tests.patience import PATIENCE_S


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """The address of a server of its own, and its process."""
    if (program := shutil.which("redis-server")) is None:
        pytest.skip("no redis-server on this machine")
    import redis

    port = free_port()
    command = [program, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as server:
        until = time.monotonic() + PATIENCE_S
        while time.monotonic() < until:
            with redis.Redis(port=port) as client:
                try:
                    client.ping()
                    break
                except redis.ConnectionError:
                    time.sleep(0.05)
        yield f"redis://127.0.0.1:{port}", server
        server.terminate()


def test_two_processes_count_as_one_and_a_lost_redis_locks_nobody_out(
    redis: tuple[str, subprocess.Popen[bytes]],
) -> None:
    address, server = redis
    one, other = (Limits(Rules(answers_per_hour=2, tokens_per_hour=100), address) for _ in range(2))
    one.admit("mia")
    other.admit("mia")
    with pytest.raises(LimitReached, match="2 answers"):
        one.admit("mia")
    one.admit("ben")
    one.spend("ben", 150)
    with pytest.raises(LimitReached, match="100 tokens"):
        other.admit("ben")
    server.terminate()
    server.wait(PATIENCE_S)
    one.admit("mia")
    one.spend("mia", 10)
