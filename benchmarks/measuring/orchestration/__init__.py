"""The orchestration tax: how much longer rollouts take than the engine that they wait for.

`latency` is the model of an engine's time, `recording` what the engine writes, `fake_engine` the
server; ``play_…`` drive one contestant each, in that contestant's own environment.
"""
