"""The shipped models: how they were trained, and the gallery of their atlases. Their paths are in `shipped`."""
