"""A suite of one's own with a family and the program that answers it.

Try it: codedance play --suite examples/clocks.py
"""

from math import cos, pi, sin

from codedance.envs import Item, register_family
from codedance.policies import register_program
from PIL import Image, ImageDraw

QUESTION = "Which hour does the red hand show, 1 to 12?"
DIAL = {"easy": 100, "medium": 40, "hard": 16}  # radius, pixels
PROGRAM = """\
import numpy as np
a = np.array(input_image).astype(int)
blue = abs(a - (30, 60, 200)).sum(2) < 60
red = abs(a - (220, 40, 40)).sum(2) < 60
y, x = np.argwhere(red).mean(0) - np.argwhere(blue).mean(0)
print(round(np.degrees(np.arctan2(x, -y)) / 30) % 12 or 12)
"""


@register_family("clocks", "hour")
def hour(rng, band):
    """A clock with one hand; the smaller the dial, the more a look through code is worth."""
    truth = int(rng.integers(1, 13))
    radius = DIAL[band]
    x, y = (int(v) for v in rng.integers(radius + 8, 224 - radius - 8, size=2))
    patches = rng.integers(150, 250, size=(7, 7, 3)).astype("uint8")
    picture = Image.fromarray(patches).resize((224, 224))
    draw = ImageDraw.Draw(picture)
    draw.circle((x, y), radius, fill=(255, 255, 255), outline=(90, 90, 90), width=2)
    angle = truth * pi / 6
    tip = (x + 0.85 * radius * sin(angle), y - 0.85 * radius * cos(angle))
    draw.line(((x, y), tip), fill=(220, 40, 40), width=max(2, radius // 12))
    draw.circle((x, y), max(2, radius // 12), fill=(30, 60, 200))
    return Item(question=QUESTION, images=picture, answer=str(truth))


@register_program
def clock_program(question):
    """Give the code that reads the hour; it sees the picture and never the answer."""
    return PROGRAM if question == QUESTION else None
