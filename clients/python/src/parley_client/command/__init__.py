"""The `parley` command. What it prints and how it ends; the work is the SDK's and `parley_client.local`'s."""
