"""Text: documents, the contexts they are cut into, and the text of tokens. Nothing here runs a model."""
