"""`python -m atlas_builder` is `atlas-builder`."""

from atlas_builder.cli import main

if __name__ == "__main__":
    main()
