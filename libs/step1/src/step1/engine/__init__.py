"""Engines: many requests at once on one set of weights. `contract` is what callers see."""
