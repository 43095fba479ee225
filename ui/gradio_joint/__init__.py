"""Where Gradio is changed: a file for each change."""
