"""How an atlas is cited, and described for programs: citations in four forms, CITATION.cff, RO-Crate, Croissant."""
