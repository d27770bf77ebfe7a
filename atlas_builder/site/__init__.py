"""The pages: everything a reader sees. Nothing here imports torch."""
