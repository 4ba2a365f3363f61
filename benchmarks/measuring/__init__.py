"""Benchmarks: contestants side by side in one run, compared by ratios.

Machines differ and are shared, so no figure stands alone: contestants take turns within a round,
their order drawn anew each time, and what counts is the median over rounds of the ratio to the
baseline of the same round.
"""
