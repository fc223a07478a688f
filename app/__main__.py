"""`python -m app` is `cgankd`."""

from app.cli import main

if __name__ == "__main__":
    main()
