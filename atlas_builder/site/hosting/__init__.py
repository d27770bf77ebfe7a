"""What a host needs: sizes and budgets, checks of a built site, archives, and a look at it over http."""
