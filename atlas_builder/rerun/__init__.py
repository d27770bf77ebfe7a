"""An atlas's model and text run again, independently of the pass: what `verify` and `explain` rest on."""
