"""The environment alone: no torch, no trainer. Run: python examples/random_agent.py"""

import gymnasium as gym

TURNS = (
    "<think>How large is it?</think><code>\n```python\nprint(input_image.size)\n```\n</code>",
    "<think>Its middle.</think><code>\n```python\n"
    "input_image.crop((56, 56, 168, 168))\n```\n</code>",
    "<think>I guess.</think><answer>3</answer>",
)


def main() -> None:
    """Play one episode with fixed turns and print the environment's observations."""
    env = gym.make("codedance.envs:codedance/VisualCode-v0", suite="nano", split="train")
    observation, info = env.reset(seed=0)
    print(info["task_id"], "|", observation["text"])
    for turn in TURNS:
        observation, reward, terminated, truncated, info = env.step(turn)
        shapes = [image.shape for image in observation["images"]]
        print(f"{reward:+.2f}", repr(observation["text"]), shapes)
        if terminated or truncated:
            break
    print(info["ending"], info["reward_terms"])
    env.close()


if __name__ == "__main__":
    main()
