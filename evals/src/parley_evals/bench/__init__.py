"""Benchmarks of the stages: ratios measured in one run, on seeded weights, each with its target.

Both sides of a ratio run in turns in the same process, so whatever else the machine does meets
both. CPU time decides and wall time stands beside it: on a machine of its own they agree, on a
shared one only the first is about this code. Not for: absolute figures of real checkpoints.
"""
