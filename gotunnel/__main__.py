"""`python -m gotunnel`."""

from gotunnel.cli.main import main

if __name__ == "__main__":
    raise SystemExit(main())
