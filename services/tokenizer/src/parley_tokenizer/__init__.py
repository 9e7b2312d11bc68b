"""Speech to dual-code tokens."""
