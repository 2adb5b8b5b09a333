"""The Click elements, one a file."""
