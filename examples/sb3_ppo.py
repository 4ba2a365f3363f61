"""Stable-Baselines3's PPO learns two families from the menu. Run: python examples/sb3_ppo.py

The curve is in MLflow (`codedance ui`, experiment codedance-sb3).
"""

import argparse

import gymnasium as gym
import torch
from codedance.pipelines.sb3_curve import MLflowCurve
from codedance.policies.sb3_features import MenuFeatures
from stable_baselines3 import PPO
from stable_baselines3.common.env_util import make_vec_env

ID = "codedance.envs:codedance/VisualCodeMenu-v0"
FAMILIES = ("count", "bars")


def judge(act, *, episodes, seed=10_000):
    """Play held-out tasks; give mean reward and accuracy."""
    env = gym.make(ID, split="test", families=FAMILIES, max_turns=4)
    rewards, right, scored = 0.0, 0, 0
    for number in range(episodes):
        observation, info = env.reset(seed=seed + number)
        is_over = False
        while not is_over:
            observation, reward, terminated, truncated, info = env.step(act(observation))
            rewards += reward
            is_over = terminated or truncated
        right += info["is_success"]
        scored += info["is_valid"]
    env.close()
    return rewards / scored, right / scored


def main() -> None:
    """Judge a random policy, learn, judge what was learned."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--steps", type=int, default=20_000)
    options.add_argument("--episodes", type=int, default=200, help="to judge on")
    options.add_argument("--seed", type=int, default=0)
    chosen = options.parse_args()
    torch.set_num_threads(1)
    space = gym.make(ID).action_space
    space.seed(chosen.seed)
    before = judge(lambda _: space.sample(), episodes=chosen.episodes)
    print(f"random   reward {before[0]:+.3f}   accuracy {before[1]:.1%}", flush=True)

    envs = make_vec_env(
        ID, n_envs=8, seed=chosen.seed, env_kwargs={"families": FAMILIES, "max_turns": 4}
    )
    settings = {"n_steps": 64, "batch_size": 128, "n_epochs": 6, "learning_rate": 1e-3}
    model = PPO(
        "MultiInputPolicy",
        envs,
        policy_kwargs={"features_extractor_class": MenuFeatures, "net_arch": [64]},
        ent_coef=0.02,
        gamma=0.95,
        seed=chosen.seed,
        device="cpu",
        **settings,
    )
    parameters = {"families": FAMILIES, "seed": chosen.seed, **settings}
    model.learn(chosen.steps, callback=MLflowCurve("ppo on the menu", parameters=parameters))
    envs.close()
    after = judge(lambda seen: model.predict(seen, deterministic=True)[0], episodes=chosen.episodes)
    print(f"learned  reward {after[0]:+.3f}   accuracy {after[1]:.1%}")


if __name__ == "__main__":
    main()
