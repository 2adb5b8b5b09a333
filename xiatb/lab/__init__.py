"""Topology file to plan to running lab, and back down again."""
