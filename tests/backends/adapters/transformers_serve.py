"""`transformers serve` in a process of its own: `python -m tests.backends.adapters.transformers_serve PORT`."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

ROOT = Path(__file__).resolve().parents[3]
REPOSITORY = "Qwen/Qwen2.5-Coder-0.5B-Instruct"
START_SECONDS = 180


@contextmanager
def served(weights: Path, hub: Path, port: int) -> Iterator[str]:
    """Its address while it runs. It finds the files of the folder `weights` in the hub's cache `hub`, no others."""
    repository, revision = hub / f"models--{REPOSITORY.replace('/', '--')}", "0" * 40
    for folder in ("refs", "blobs", f"snapshots/{revision}"):
        (repository / folder).mkdir(parents=True)
    (repository / "refs" / "main").write_text(revision)
    for file in weights.iterdir():
        (repository / "snapshots" / revision / file.name).symlink_to(file)
    process = subprocess.Popen(
        [sys.executable, "-m", __name__, str(port)],
        cwd=ROOT,
        env=os.environ | {"HF_HUB_CACHE": str(hub), "HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    address = f"http://127.0.0.1:{port}"
    try:
        _wait_for(f"{address}/health", process)
        yield address
    finally:
        process.kill()
        process.wait()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_for(health: str, process: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + START_SECONDS
    while time.monotonic() < until and process.poll() is None:
        try:
            if httpx.get(health, timeout=5).status_code == 200:
                return
        except httpx.HTTPError:
            time.sleep(0.1)
    raise RuntimeError("transformers serve did not start")


if __name__ == "__main__":
    from backends.adapters.hf_transformers.torchvision_shim import make_torchvision_importable

    make_torchvision_importable()
    from transformers.cli.transformers import main

    sys.argv = ["transformers", "serve", "--host", "127.0.0.1", "--port", sys.argv[1], "--device", "cpu"]
    sys.argv += ["--dtype", "bfloat16"]
    main()
