"""TRL's GRPOTrainer on our environment. Run: python examples/trl_grpo.py

TRL provides the batches, the advantages within a group, the loss, the optimizer and the logs. Our
adapter provides the episodes (several turns, code in the sandbox, exact ids), the reward of
siblings, and what TRL's interface does not support: images that code returned, advantages per turn.
"""

import os
import sys
import tempfile

from codedance.envs.episode_factory import EpisodeHost, HostSettings
from codedance.policies import load_policy
from codedance.sandbox import open_sandbox
from datasets import Dataset
from guesser import FAMILIES, MAX_TURNS, judge, make_guesser, read_options, report
from transformers import PrinterCallback, TrainerCallback

# Else TRL warns that rollout_func may change.
os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")
from codedance.policies.adapters.trl_grpo import Rollouts, VisualCodeTrainer, prompts
from trl import GRPOConfig

GROUPS, SIBLINGS = 4, 6


class ShowReward(TrainerCallback):
    """Prints TRL's own mean reward of each step."""

    def on_log(self, args, state, control, logs=None, **_):
        """Print a line."""
        if logs and "reward" in logs:
            print(f"step {state.global_step}   reward {float(logs['reward']):+.3f}", flush=True)


def make_trainer(policy, sandbox, *, steps, folder, seed):
    """Set up TRL's trainer on the policy's own weights."""
    settings = HostSettings(families=FAMILIES, max_turns=MAX_TURNS)
    host = EpisodeHost(settings, sandbox=sandbox)
    rows = prompts(host.tasks(GROUPS * steps, start=GROUPS * steps * seed))
    rollouts = Rollouts(policy, host)
    trainer = VisualCodeTrainer(
        model=policy.model.model,
        processing_class=policy.model.chat.tokenizer,
        reward_funcs=rollouts.score,
        rollout_func=rollouts,
        train_dataset=Dataset.from_list(rows),
        callbacks=[ShowReward()],
        args=GRPOConfig(
            output_dir=folder,
            max_steps=steps,
            per_device_train_batch_size=GROUPS * SIBLINGS,
            num_generations=SIBLINGS,
            learning_rate=2e-4,
            lr_scheduler_type="constant",
            loss_type="dapo",
            beta=0.0,
            seed=seed,
            use_cpu=policy.model.device.type == "cpu",
            bf16=False,
            logging_steps=1,
            report_to=[],
            save_strategy="no",
            disable_tqdm=True,
        ),
    )
    trainer.remove_callback(PrinterCallback)
    return trainer


def main():
    """Train the guesser and report whether the held-out reward rose."""
    chosen = read_options(__doc__, steps=20)
    with tempfile.TemporaryDirectory() as folder, open_sandbox("local") as sandbox:
        policy = load_policy(make_guesser(folder))
        before = judge(policy, episodes=chosen.episodes)
        settings = {"steps": chosen.steps, "folder": folder, "seed": chosen.seed}
        make_trainer(policy, sandbox, **settings).train()
    after = judge(policy, episodes=chosen.episodes)
    sys.exit(report("TRL's GRPOTrainer", before, after, least=chosen.least))


if __name__ == "__main__":
    main()
