"""What can go wrong in a migration, what must come of it, and the means to try it in a lab."""
