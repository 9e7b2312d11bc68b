"""Looking at a cluster: what it has, what Parley needs there, what to do about the difference."""
