"""A conversation and how it is shown. Pure: no gradio in here."""
