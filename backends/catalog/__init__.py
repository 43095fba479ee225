"""The models as data: cards, what their names mean, and which one suits a task and a machine."""
