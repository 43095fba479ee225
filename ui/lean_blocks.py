"""Blocks in which an output that a handler leaves alone costs nothing.

Gradio 6.31 makes each such component anew at every step of a stream, its signature and JSON schema included: most of
the page's work while an answer streams. Reaches into Gradio; a test holds it against the original, and without it
everything works, only slower.
"""

from __future__ import annotations

from copy import copy
from typing import Any

import gradio as gr
from gradio.blocks import Block


class LeanBlocks(gr.Blocks):  # type: ignore[misc]
    async def postprocess_data(self, block_fn: Any, predictions: Any, state: Any) -> list[Any]:
        """As gradio's, for those outputs only that a dict of updates names."""
        by_block = isinstance(predictions, dict) and predictions and all(isinstance(key, Block) for key in predictions)
        if not by_block or len(predictions) == len(block_fn.outputs):
            return await super().postprocess_data(block_fn, predictions, state)  # type: ignore[no-any-return]
        given = {block._id: value for block, value in predictions.items()}
        touched = copy(block_fn)
        touched.outputs = [block for block in block_fn.outputs if block._id in given]
        values = [given[block._id] for block in touched.outputs]
        done = await super().postprocess_data(touched, values if len(values) > 1 else values[0], state)
        by_id = dict(zip((block._id for block in touched.outputs), done, strict=True))
        return [by_id.get(block._id, None if block.stateful else {"__type__": "update"}) for block in block_fn.outputs]
