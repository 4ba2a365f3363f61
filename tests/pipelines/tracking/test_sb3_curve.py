"""SB3's PPO on the menu with our extractor; its curve is logged to MLflow."""

from __future__ import annotations

import gymnasium as gym
import mlflow
import numpy as np
import pytest
import torch
from codedance.pipelines.tracking.mlflow.sb3_curve import MLflowCurve
from codedance.policies.adapters.sb3_features import MenuFeatures
from stable_baselines3 import PPO
from stable_baselines3.common.env_util import make_vec_env

pytestmark = pytest.mark.filterwarnings("ignore")  # warnings of SB3 and MLflow only

ID = "codedance.envs:codedance/VisualCodeMenu-v0"


@pytest.mark.slow
def test_a_run_of_ppo_logs_its_curve_and_figure(home, monkeypatch):
    monkeypatch.setenv("CODEDANCE_DIR", str(home.root))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", home.mlflow_uri)
    envs = make_vec_env(ID, n_envs=2, seed=0, env_kwargs={"families": ["count"], "max_turns": 2})
    model = PPO(
        "MultiInputPolicy",
        envs,
        n_steps=8,
        batch_size=16,
        n_epochs=1,
        policy_kwargs={"features_extractor_class": MenuFeatures},
        device="cpu",
    )
    curve = MLflowCurve("short", parameters={"families": "count"})
    model.learn(32, callback=curve)
    envs.close()
    client = mlflow.MlflowClient(home.mlflow_uri)
    run = client.get_run(curve.run_id)
    assert run.info.status == "FINISHED"
    assert run.data.params == {"algorithm": "PPO", "families": "count"}
    assert [point.step for point in client.get_metric_history(run.info.run_id, "accuracy")] == [
        16,
        32,
    ]
    terms = {name: value for name, value in run.data.metrics.items() if name.count("/") == 2}
    assert {"rewards/accuracy/mean", "rewards/tool_sequence/mean"} <= set(terms)
    assert run.data.metrics["rewards/mean"] == pytest.approx(sum(terms.values()))
    assert [one.path for one in client.list_artifacts(run.info.run_id)] == ["learning_curve.png"]


@pytest.mark.parametrize(
    ("rise", "steps"),
    [(0.5, 9), *(pytest.param(*case, marks=pytest.mark.slow) for case in ((None, 12), (2.0, 12)))],
)
def test_training_stops_when_the_reward_has_risen_by_the_given_amount(
    home, monkeypatch, rise, steps
):
    """Rewards are 0, then 1; the mean over the newest two episodes rises by 1."""
    monkeypatch.setenv("CODEDANCE_DIR", str(home.root))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", home.mlflow_uri)

    class Later(gym.Env):
        """Each step is an episode; the first four have reward 0, later ones 1."""

        observation_space = gym.spaces.Box(0.0, 1.0, (1,))
        action_space = gym.spaces.Discrete(2)
        steps = 0

        def reset(self, *, seed=None, options=None):
            super().reset(seed=seed)
            return np.zeros(1, np.float32), {}

        def step(self, action):
            self.steps += 1
            reward = float(self.steps > 4)
            info = {"reward_terms": {"accuracy": reward}, "is_success": reward > 0}
            info |= {"is_valid": True, "turn": 1}
            return np.zeros(1, np.float32), reward, True, False, info

    model = PPO("MlpPolicy", Later(), n_steps=4, batch_size=4, n_epochs=1, device="cpu")
    model.learn(12, callback=MLflowCurve("by hand", window=2, rise=rise))
    assert model.num_timesteps == steps  # the step after the rollout with the rise is the last


@pytest.mark.parametrize("sees", [True, False])
def test_features_depend_on_question_output_and_optionally_on_images(sees):
    env = gym.make(ID, side=40)
    torch.manual_seed(0)
    space = gym.spaces.Dict(
        {
            name: gym.spaces.Box(0, 255, (3, 40, 40), np.uint8) if "image" in name else box
            for name, box in env.observation_space.items()
        }
    )
    features = MenuFeatures(space, 16, sees=sees)
    before = {name: torch.zeros(2, *box.shape) for name, box in space.items()}
    base = features(before)
    assert base.shape == (2, 16)
    for name in space:
        changed = features(before | {name: torch.ones_like(before[name])})
        is_read = sees or "image" not in name
        assert bool((changed != base).any()) is is_read
