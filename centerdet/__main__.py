"""`python -m centerdet` is the command `centerdet`."""

from .cli import main

if __name__ == "__main__":
    main()
