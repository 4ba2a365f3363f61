"""The embedded suite: seven families in three difficulties, drawn from seeds, answered from pixels.

Whether a task needs code is visible in its image only: the questions are the same at every
difficulty. At easy the answer is visible to a model that sees 112 by 112 pixels; at hard the detail
is lost when the image is downscaled to that size.
"""
