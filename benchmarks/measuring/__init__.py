"""Benchmarks: contestants measured side by side in one run, compared by ratios.

Machines differ and are shared, and absolute figures are not comparable: contestants take turns
within a round, in a random order, and the result is the median over rounds of the ratio to the
baseline in the same round.
"""
