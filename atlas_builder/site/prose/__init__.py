"""Prose pages through MkDocs, in the theme of the atlas."""
