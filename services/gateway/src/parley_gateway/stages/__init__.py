"""Typed clients of the stages: plain values in and out, deadlines, one retry, typed errors."""
