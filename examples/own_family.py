"""A custom task family and reward term. Run: python examples/own_family.py"""

import gymnasium as gym
from codedance.envs import Item, register_family, register_reward_term
from PIL import Image


@register_family("shades", "grey")
def grey(rng, difficulty):
    """Brightness of a grey image, from 0 to 255."""
    level = int(rng.integers(256))
    picture = Image.new("RGB", (64, 64), (level, level, level))
    return Item(question="What is the grey level, 0 to 255?", images=picture, answer=str(level))


@register_reward_term("brevity", weight=0.1)
def brevity(trajectory):
    """Return 1 for a trajectory of at most two turns, else 0."""
    return float(len(trajectory.turns) <= 2)


def main() -> None:
    """Read the pixel, answer, and print the reward terms."""
    env = gym.make("codedance.envs:codedance/VisualCode-v0", suite="shades", split="train")
    observation, info = env.reset(seed=1)
    look = "<code>\n```python\nprint(input_image.getpixel((0, 0))[0])\n```\n</code>"
    observation, *_ = env.step(look)
    level = observation["text"].split()[1]
    *_, info = env.step(f"<answer>{level}</answer>")
    print(info["is_success"], info["reward_terms"])
    env.close()


if __name__ == "__main__":
    main()
