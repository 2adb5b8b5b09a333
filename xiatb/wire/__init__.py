"""Bytes to objects and back: XIDs, DAGs, XIP, XCMP, XARP and transport headers."""
