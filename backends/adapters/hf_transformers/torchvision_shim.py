"""Lets a torchvision that was built for CUDA be imported beside a CPU-only torch.

The package registry's torchvision is a CUDA build. Beside a CPU torch its compiled part does not load, and importing
torchvision dies for want of two operators, which takes every Qwen-VL class of transformers along. Declaring their
signatures is enough: what Qwen-VL uses of torchvision is plain Python.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

_SIGNATURE = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
_OPERATORS = ("nms", "qnms")
_kept: list[Any] = []  # the declarations last as long as this object


def make_torchvision_importable() -> None:
    """Call before anything imports torchvision or transformers' image classes. Does nothing where it is not needed."""
    import torch

    if _kept or torch.version.cuda or _extension_loads():
        return
    library = torch.library.Library("torchvision", "DEF")
    for name in _OPERATORS:
        library.define(name + _SIGNATURE)
    _kept.append(library)


def _extension_loads() -> bool:
    """Whether torchvision's compiled part fits this torch; found and tried without importing torchvision."""
    import torch

    found = importlib.util.find_spec("torchvision")
    if found is None or found.origin is None:
        return True  # not installed: nothing to help
    try:
        for extension in Path(found.origin).parent.glob("_C.*"):
            torch.ops.load_library(extension)
    except OSError:
        return False
    return hasattr(torch.ops.torchvision, "nms")
