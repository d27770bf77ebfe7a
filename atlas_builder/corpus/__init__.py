"""Text: documents, the contexts they are cut into, and what tokens read as. Nothing here runs a model."""
