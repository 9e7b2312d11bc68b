"""The picture of one turn: a single HTML file that needs no network."""
