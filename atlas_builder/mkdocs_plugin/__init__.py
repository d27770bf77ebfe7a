"""The MkDocs plugin: an atlas as a site or in one. It stands above the build, which nothing else of a site does."""
