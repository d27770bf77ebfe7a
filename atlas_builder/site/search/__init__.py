"""Search: an index that works from a folder, in shards that scripts load."""
