"""``python -m codedance.pipelines.cli``: what ``accelerate launch -m`` starts."""

from . import main

main()
