"""The app's entry point, for `python app.py` and for Hugging Face Spaces."""

from contextlib import suppress

with suppress(ImportError):
    import spaces  # noqa: F401  # on ZeroGPU it has to come before torch

from ddpm_demo.ui.serve import main

if __name__ == "__main__":
    main()
