"""`python -m cgankd.app` is `cgankd`."""

from cgankd.app.cli import main

if __name__ == "__main__":
    main()
