"""Tokens to mel by conditional flow matching (spec section 4.3), parameter names of `flow.pt`."""
