"""The MkDocs plugin: an atlas as a site or in one. Unlike `site`, it runs builds."""
