"""Attacks: what a stranger's files, an unlucky moment or a dishonest host could do, tried at length.

Each module is run by `python -m tests.attacks.NAME`, prints a table of what was tried and what held, and ends with
status 1 if anything did not. `--small` takes about a minute; `python -m tests.attacks --small` runs them all so. What
is quick is in the ordinary tests beside the code.
"""
