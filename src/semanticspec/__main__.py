"""`python -m semanticspec`: the command line."""

from semanticspec.commands.main import main

if __name__ == "__main__":
    main()
