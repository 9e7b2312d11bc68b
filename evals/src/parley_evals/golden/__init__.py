"""Parity with the reference implementation, over golden cases on disk.

A golden case is a folder with a `case.json` (what was run, dimensions, tolerances), `inputs.npz`
and `outputs.npz`, or JSON tables. The runner feeds the inputs to the classes that the services
serve with and compares. It holds no model code.
"""
