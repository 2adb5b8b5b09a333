"""Scenarios: files that say what happens in a lab, when, and what must come of it (docs/scenarios.md)."""
