"""Servers that speak OpenAI's chat completions: the client, their differences as data, engines elsewhere."""
