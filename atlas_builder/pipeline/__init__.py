"""The story of a build: its stages, what makes one run again, and a pass shared between machines."""
