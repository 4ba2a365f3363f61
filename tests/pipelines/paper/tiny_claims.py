"""A protocol that takes seconds: every kind of arm and claim, at sizes too small to learn."""

_HEAD = """
title: A trial
stopping_rule: Two seeds of every arm.
metrics: Greedy accuracy decides.
seeds: 2
confidence: 0.95
"""

_PRESETS = """
presets:
  quick:
    seconds: {curate: 2, sft: 0.1, grpo: 1, episode: 0.01}
    preset:
      suite: nano
      max_new_tokens: 12
      curate: {candidates: 48, known: 40, weak_samples: 2, strong_samples: 1}
      sft: {steps: 4, batch_size: 4, warmup_steps: 1, save_every: 2}
      grpo: {steps: STEPS, tasks_per_step: 2, num_generations: 2, save_every: 1}
      evaluate: {limit: 42, batch_size: 42, traces: 0}
"""

TINY_CLAIMS = (
    _HEAD
    + """
arms:
  - {name: sft/code, stage: sft}
  - {name: rl/code, stage: grpo, start: sft/code, scale_rewards: group}
  - {name: more, stage: sft, start: sft/code, as_long_as: rl/code}
  - {name: sft/box, stage: sft, interface: box}
  - {name: rl/box, stage: grpo, start: sft/box, interface: box, reward: outcome}
  - {name: sft/text, stage: sft, interface: text}
  - {name: rl/kept, stage: grpo, start: sft/code, without_families: [bars, tag]}
  - {name: sft/gap, stage: sft, shown_directly: [tag]}
  - {name: rl/gap, stage: grpo, start: sft/gap}
claims:
  - name: code over box
    says: Code beats a box.
    kind: compare
    tasks: [medium, hard]
    first: rl/code
    second: [rl/box]
  - name: calls
    says: RL calls no more often than either cold start.
    kind: compare
    metric: tool_calls
    mode: sampled
    first: sft/code
    second: [rl/code, sft/box]
    above: -0.1
  - {name: code runs, says: It runs., kind: level, metric: execution_success, first: sft/code}
  - name: transfer
    says: A family improves.
    kind: any_family
    tasks: [bars, tag]
    first: rl/kept
    second: [sft/code]
  - {name: emergence, says: New code., kind: emergence, first: rl/gap, family: tag}
"""
    + _PRESETS.replace("STEPS", "2")
)

SHORT_CLAIMS = (
    _HEAD
    + """
arms:
  - {name: sft, stage: sft}
  - {name: rl, stage: grpo, start: sft}
  - name: nothing
    stage: grpo
    start: sft
    without_families: [digit, tag, dots, count, bars, area, maze]
  - {name: more, stage: sft, start: sft, as_long_as: rl}
claims:
  - name: longer steps
    says: Ten turns are enough for anyone.
    kind: compare
    metric: tool_calls
    first: rl
    second: [sft]
    above: -10
"""
    + _PRESETS.replace("STEPS", "4")
)
