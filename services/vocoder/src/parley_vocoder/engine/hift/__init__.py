"""Mel to wave: f0, harmonic source, iSTFT generator (spec section 4.4), names of `hift.pt`."""
