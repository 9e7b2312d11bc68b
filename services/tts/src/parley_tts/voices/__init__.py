"""Voices: what a prompt recording becomes, where it is kept, and how new ones are made."""
