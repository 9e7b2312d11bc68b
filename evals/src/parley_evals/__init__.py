"""Measurements of Parley: parity with the reference, and benchmarks. Nothing here serves."""
