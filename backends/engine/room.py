"""What all engines of one playground share: the limits, the figures, the gate that closes at its end, and whether what
people type may hold control tokens."""

from __future__ import annotations

from dataclasses import dataclass, field

from backends.engine.gate import Gate
from backends.engine.limits import Limits
from backends.engine.metrics import Metrics


@dataclass(frozen=True, slots=True)
class Room:
    limits: Limits = field(default_factory=Limits)
    metrics: Metrics = field(default_factory=Metrics)
    gate: Gate = field(default_factory=Gate)
    raw_control_tokens: bool = False
