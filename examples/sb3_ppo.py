"""Stable-Baselines3's PPO on two families of the menu. Run: python examples/sb3_ppo.py

The policy chooses a program and a colour, and when to answer with the program's output; the
reward is the environment's own with all its terms. A random policy, the untrained and the trained
policy play the same held-out tasks, and the trained one also with black images, which
shows whether it reads the images itself or through its programs. The learning curve is in
MLflow (`codedance ui`, experiment codedance-sb3).
"""

import argparse
import time

import gymnasium as gym
import numpy as np
import torch
from codedance.envs.menu.programs import MENU
from codedance.pipelines.analysis.statistics import paired_difference, wilson
from codedance.pipelines.tracking.mlflow.sb3_curve import MLflowCurve
from codedance.policies.adapters.sb3_features import MenuFeatures
from codedance.policies.adapters.sb3_vec_env import ThreadVecEnv
from stable_baselines3 import PPO
from stable_baselines3.common.env_util import make_vec_env

ID = "codedance.envs:codedance/VisualCodeMenu-v0"
PROGRAMS = tuple(entry.name for entry in MENU if entry.program is not None)
SETTINGS = {
    "families": ("count", "bars"),
    "entries": (*PROGRAMS, "answer_printed"),
    "max_turns": 3,
    "side": 36,
}
LEARNING = {
    "n_steps": 16,  # per environment, of 16: updates soon after each of the rare early successes
    "batch_size": 128,
    "n_epochs": 8,
    "learning_rate": 2e-3,
    "clip_range": 0.4,
    "ent_coef": 0.05,
    "gamma": 1.0,
}


def judge(name, act, *, episodes, is_blind=False):
    """Play the same held-out tasks for every policy; print the mean and return all rewards."""
    env = gym.make(ID, split="test", **SETTINGS)
    rewards, right = [], 0
    for number in range(episodes):
        observation, info = env.reset(seed=10_000 + number)
        rewards.append(0.0)
        is_over = False
        while not is_over:
            if is_blind:
                observation |= {key: 0 * observation[key] for key in ("image", "tool_image")}
            observation, reward, terminated, truncated, info = env.step(act(observation))
            rewards[-1] += reward
            is_over = terminated or truncated
        if not info["is_valid"]:
            raise RuntimeError("the sandbox failed: see the log")
        right += info["is_success"]
    env.close()
    reward = paired_difference([0.0] * episodes, rewards)
    share = wilson(right, episodes)
    print(
        f"{name:<24} reward {reward.mean:+.3f} (95 %: {reward.low:+.3f} to {reward.high:+.3f})   "
        f"accuracy {share.share:.1%} ({share.low:.1%} to {share.high:.1%})",
        flush=True,
    )
    return rewards


def make_model(chosen):
    """Return PPO with our features extractor on environments that step in threads."""
    envs = make_vec_env(
        ID, n_envs=16, seed=chosen.seed, vec_env_cls=ThreadVecEnv, env_kwargs=SETTINGS
    )
    return PPO(
        "MultiInputPolicy",
        envs,
        policy_kwargs={
            "features_extractor_class": MenuFeatures,
            "features_extractor_kwargs": {"sees": not chosen.blind},
            "net_arch": [64],
        },
        seed=chosen.seed,
        device="cpu",
        **LEARNING,
    )


def main() -> None:
    """Evaluate a random and the untrained policy, train, and evaluate the trained policy."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--steps", type=int, default=16_384)
    options.add_argument("--episodes", type=int, default=200, help="held-out evaluation episodes")
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--rise", type=float, help="stop when the mean reward has risen by this")
    options.add_argument("--blind", action="store_true", help="train without the images")
    chosen = options.parse_args()
    torch.set_num_threads(1)
    model = make_model(chosen)
    draw = np.random.default_rng(chosen.seed)
    sizes = model.action_space.nvec

    def act(seen):
        return model.predict(seen, deterministic=True)[0]

    judge("by chance", lambda _: draw.integers(0, sizes), episodes=chosen.episodes)
    before = judge("before", act, episodes=chosen.episodes)
    started = time.perf_counter()
    parameters = {"seed": chosen.seed, "blind": chosen.blind, **SETTINGS, **LEARNING}
    curve = MLflowCurve("ppo on the menu", parameters=parameters, rise=chosen.rise)
    model.learn(chosen.steps, callback=curve)
    print(f"learned {model.num_timesteps} steps in {time.perf_counter() - started:.0f} s")
    model.get_env().close()
    after = judge("after", act, episodes=chosen.episodes)
    judge("after, images black", act, episodes=chosen.episodes, is_blind=True)
    gain = paired_difference(before, after)
    print(f"the reward rose by {gain.mean:+.3f} (95 %: {gain.low:+.3f} to {gain.high:+.3f})")


if __name__ == "__main__":
    main()
