"""What a host needs: sizes and budgets, checks of a built site, archives, and a local server."""
