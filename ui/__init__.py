"""The screens and the named endpoints. The only package that imports gradio."""
