"""15. Zero-variance groups: steps that teach nothing, and no dynamic sampling.

Reported: TRL #3708, #3973, #4764.
Try: half of the tasks give every sibling the same reward. Are such groups drawn again, so that a
step learns from as many groups as was asked for?
"""

from ..verdict import judge, untried


def ours():
    from codedance.envs.types import Task
    from codedance.policies.interface import Reply
    from codedance.policies.training.grpo.config import GRPOConfig
    from codedance.policies.training.grpo.groups import GroupSampler
    from codedance.sandbox import open_sandbox

    from ..benches.in_ours import picture

    class HalfFlat:
        """Answers wrong on every second task, and right every second time on the others."""

        id, system_prompt, count = "half-flat", "", 0

        def reply(self, conversations, *, sampling):
            HalfFlat.count += 1
            texts = []
            for number, one in enumerate(conversations):
                is_flat = "odd" in str(one.messages[-1].parts[-1])
                texts.append("1" if is_flat or number % 2 else "5")
            return [Reply(f"<answer>{text}</answer>") for text in texts]

    kinds = ("even", "odd")
    base = {"suite": "t", "family": "t", "split": "train", "answer": "5", "images": (picture(),)}
    tasks = [Task(id=f"t/{n}", question=f"How many, {kinds[n % 2]}?", **base) for n in range(16)]
    config = GRPOConfig(tasks_per_step=4, num_generations=4, max_redraws=4, reward="outcome")
    with open_sandbox("local") as sandbox:
        kept, replaced = GroupSampler(tasks, config, sandbox=sandbox).sample(HalfFlat(), 0)
    useful = sum(not one.is_flat for one in kept)
    return judge(
        useful == 4, f"{useful} of 4 groups teach; {len(replaced)} flat ones were replaced"
    )


def trl():
    from ..benches import in_trl

    rows = [{"prompt": [{"role": "user", "content": f"How many, {n}?"}]} for n in range(4)]
    trainer = in_trl.make_trainer(
        rewards=[lambda completions, **_: [0.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0, 1.0]],
        rows=rows,
        writes=lambda turn, n: ["4"] * n,
        per_device_train_batch_size=8,
        num_generations=4,
    )
    batch = in_trl.batch_of(trainer)
    advantages = batch["advantages"].reshape(2, 4)
    useful = int((advantages != 0).any(dim=1).sum())
    share = trainer._metrics["train"]["frac_reward_zero_std"][0]
    return judge(
        useful == 2,
        f"GRPOTrainer: {useful} of 2 groups teach, none is drawn again; the share is logged "
        f"(frac_reward_zero_std {share:.1f})",
    )


def verl():
    from verl.trainer.config.algorithm import FilterGroupsConfig

    return untried(
        f"there is such a setting (algorithm.filter_groups, enable={FilterGroupsConfig().enable} by "
        "default; trainer/ppo/v1/replay_buffer.py evicts groups of equal rewards and refills), but "
        "only its trainer runs it"
    )


def verifiers():
    return untried("verifiers trains nothing; the groups are prime-rl's")
