"""The child process that runs llama.cpp's own server. The only code that imports xllamacpp.

Started as `python -m backends.adapters.llama_cpp.child` with one line of JSON on stdin, so that the key shows neither
in the command line nor in the environment. It answers with one line of JSON on stdout, the address that it listens on,
and ends when stdin does: a parent that is gone, however it went, takes its child along.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from typing import Any


def main() -> None:
    config = json.loads(sys.stdin.readline())
    _end_with_stdin()
    server = _serve(config)
    print(json.dumps({"address": server.listening_address}), flush=True)  # noqa: T201 (this is the protocol)
    sys.stdin.read()  # returns when the parent closes it or is gone
    os._exit(0)  # an orderly shutdown would wait for answers that nobody reads any more


def _end_with_stdin() -> None:
    """Lets the kernel end this process when stdin closes, for while native code holds the interpreter (a load)."""
    if sys.platform == "linux":
        import fcntl

        signal.signal(signal.SIGIO, signal.SIG_DFL)  # the default action is to end the process
        fcntl.fcntl(0, fcntl.F_SETOWN, os.getpid())
        fcntl.fcntl(0, fcntl.F_SETFL, fcntl.fcntl(0, fcntl.F_GETFL) | os.O_ASYNC)


def _serve(config: dict[str, Any]) -> Any:
    """Loads the model and returns the listening server. `config` is what `llama_cpp.LlamaCpp` writes."""
    from xllamacpp import CommonParams, Server

    params = CommonParams()
    params.model.path = config["model"]
    if config["projector"]:
        params.mmproj.path = config["projector"]
        # Pictures come in the size in which the model is to see them: the server's own bounds must not change it.
        params.image_min_tokens, params.image_max_tokens = 1, config["visual_tokens"]
    params.hostnames = ["127.0.0.1"]
    params.port = 0
    params.api_keys = [config["key"]]
    params.n_parallel = config["slots"]
    params.n_ctx = config["context"] * config["slots"]  # the server divides it by the slots
    params.cpuparams.n_threads = config["threads"]
    params.cpuparams_batch.n_threads = config["threads"]
    params.n_batch = params.n_ubatch = config["batch"]
    params.cache_ram_mib = config["cache_mib"]
    params.use_jinja = True
    params.fit_params = False  # the plan was made by hardware.py; the engine must not shrink it behind our back
    params.endpoint_slots = True
    params.endpoint_metrics = True
    params.ui = False
    return Server(params)


if __name__ == "__main__":
    main()
