"""Where the tokenizer's models run."""
