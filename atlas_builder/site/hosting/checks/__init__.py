"""The parts of `check`: each compares one kind of what is published with another. Nothing here reads a model."""
