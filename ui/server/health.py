"""How the playground says how it is, to programs: /healthz, /readyz and /metrics. Nothing of it names a person."""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Mapping

from prometheus_client import CONTENT_TYPE_LATEST
from prometheus_client.core import GaugeMetricFamily, Metric
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from backends.engine.engine import Engine
from backends.engine.readiness import Readiness
from ui.server.routes import OwnRoute


def health_routes(engines: Mapping[str, Engine]) -> list[OwnRoute]:
    """The routes for engines by name, the default first. Raises ValueError where their room has routes already."""
    room = next(iter(engines.values())).room
    readiness = Readiness(engines)
    start = secrets.token_hex(4)  # a page that meets another one than before was left behind by a restart

    def gauges() -> Iterable[Metric]:
        labels = ["engine", "model"]
        waiting = GaugeMetricFamily("playground_waiting", "Requests in line", labels=labels)
        running = GaugeMetricFamily("playground_running", "Requests that are being answered", labels=labels)
        memory = GaugeMetricFamily("playground_model_bytes", "Memory that a loaded model was given", labels=labels)
        people = GaugeMetricFamily("playground_people", "People who asked in the last minutes", room.limits.people)
        for engine in engines.values():
            for model in engine.models.loaded():
                whose = [engine.name, model.card.id]
                waiting.add_metric(whose, model.line.waiting)
                running.add_metric(whose, model.line.running)
                memory.add_metric(whose, model.need_bytes)
        return waiting, running, memory, people

    room.metrics.watch(gauges)

    async def healthz(request: Request) -> Response:
        return JSONResponse({"status": "ok", "start": start})

    async def readyz(request: Request) -> Response:
        ready, ages = await run_in_threadpool(readiness.check)
        return JSONResponse({"ready": ready, "last_token_s_ago": ages}, 200 if ready else 503)

    async def metrics(request: Request) -> Response:
        return Response(room.metrics.text(), media_type=CONTENT_TYPE_LATEST)

    answers = {"/healthz": healthz, "/readyz": readyz, "/metrics": metrics}
    return [OwnRoute(path, answer, "public") for path, answer in answers.items()]
