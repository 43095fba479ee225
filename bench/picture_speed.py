"""How long a question about a picture takes with the tiny demo model, load included and after it."""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from gradio_client import Client, handle_file

from bench.processes import free_port, started
from bench.report import Figure, median, p95

PICTURE = Path(__file__).resolve().parents[1] / "examples" / "pictures" / "shapes.png"
QUESTIONS = ("What is in the picture?", "Where is the green triangle?", "How many circles are there?", "图中有什么？")


def measure(quick: bool) -> Iterator[Figure]:
    rounds = 1 if quick else 5
    first: list[float] = []
    later: list[float] = []
    with tempfile.TemporaryDirectory() as cache:
        for _ in range(rounds):
            port = free_port()
            command = [sys.executable, "app.py", "--port", str(port), "--offline", "--cache-dir", cache]
            with started(command, port, {"PLAYGROUND_ENGINE": "llama_cpp"}):
                client = Client(f"http://127.0.0.1:{port}", verbose=False)
                first.append(_asked(client, QUESTIONS[0]))
                later += [_asked(client, question) for question in QUESTIONS * (1 if quick else 3)]
    yield Figure(
        "a picture question, model loaded",
        "",
        f"{median(later):.2f} s, p95 {p95(later):.2f} s",
        "",
        str(len(later)),
        target="at most 2 s",
        met=p95(later) <= 2,
        note="the tiny demo model on llama.cpp, a picture of 512 x 512 pixels uploaded anew with every question; from "
        "the call of gradio_client to the last item.",
    )
    yield Figure(
        "the same, the first one of a fresh start",
        "",
        f"{median(first):.2f} s, most {max(first):.2f} s",
        "",
        str(len(first)),
        target="at most 15 s",
        met=max(first) <= 15,
        note="the model is loaded for it; as above.",
    )


def _asked(client: Client, question: str) -> float:
    """Seconds from the call to the whole answer."""
    begun = time.perf_counter()
    item = client.predict(question, images=[handle_file(str(PICTURE))], api_name="/image")
    if item["state"] != "done":
        raise RuntimeError(f"the question failed: {item['error']}")
    return time.perf_counter() - begun
