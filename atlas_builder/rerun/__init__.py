"""An atlas's model run on its text again, independently of the pass, for `verify` and `explain`."""
