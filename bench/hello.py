"""The smallest Gradio app there is, to hold start and memory against. Takes its port as the only argument."""

from __future__ import annotations

import sys

import gradio as gr

gr.Interface(lambda x: x, "text", "text").launch(server_port=int(sys.argv[1]))
