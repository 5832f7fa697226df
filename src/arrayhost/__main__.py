"""``python -m arrayhost``: the same as the ``arrayhost`` command."""

from arrayhost.cli.main import main

if __name__ == "__main__":
    raise SystemExit(main())
