"""The build: its stages, the fingerprints that decide which run again, and a pass divided between machines."""
