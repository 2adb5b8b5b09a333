"""Benchmarks with the bars of issue 3, each against its baseline in the same run: scripts/bench."""
