"""Measurements of Parley: parity with the reference implementation, and benchmarks. Nothing here serves."""
