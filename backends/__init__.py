"""Everything that is not a screen: models, engines, weights, scheduling. Never imports gradio."""
