"""``python -m parley_client`` is the `parley` command."""

from parley_client.command.main import main

if __name__ == "__main__":
    main()
