"""One request from acceptance to its last event: limits, queue, models in memory, thinking, figures."""
