"""The Gradio app: the only part of the package that imports gradio."""
