"""``python -m tierce`` is the command ``tierce``."""

from tierce.cli.main import entry

if __name__ == "__main__":
    entry()
