"""Where `pkt` and `python -m pkt` begin: the imports may be interrupted too."""

import sys


def main() -> int:
    """Run the command line of this process."""
    try:
        from pkt.cli import main as command

        return command()
    except KeyboardInterrupt:  # before the command could say so itself
        return 130


if __name__ == "__main__":
    sys.exit(main())
