"""The shipped models: their training, and the gallery of their atlases. Their paths are in `shipped`."""
