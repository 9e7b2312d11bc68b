"""Who may begin, how much it may use, and who gives way when there is not enough for all."""
