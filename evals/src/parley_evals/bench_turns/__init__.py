"""Turn-taking measured from outside, in front of simulated stages: `make bench-turns`."""
