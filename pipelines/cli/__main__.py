"""``python -m codedance.pipelines.cli``: entry point for ``accelerate launch -m``."""

from . import main

main()
