"""Measures the pocket weights as a user meets them: through running services.

`questions` makes what is asked, `services` runs the constellation, `conversing` holds live turns,
`asking`, `speaking`, `cloning` measure, `sphinx` is a recogniser that is not ours, `sound` measures
audio, `figures` holds shares and error rates with their intervals. `../evaluate.py` prints the
table.
"""
