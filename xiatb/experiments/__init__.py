"""Measurements, statistics, plots and reports."""
