"""`python -m knlocal`: the command line without an installed script."""

from knlocal.cli import main

if __name__ == "__main__":
    main()
