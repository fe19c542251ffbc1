"""The console script, and `python -m knlocal`."""

import sys


def main() -> None:
    """Run the command line. Ctrl-C shows no traceback, not even while modules are imported."""
    try:
        from knlocal.cli import main as run
    except KeyboardInterrupt:
        sys.exit(130)
    run()


if __name__ == "__main__":
    main()
