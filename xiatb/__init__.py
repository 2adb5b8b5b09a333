"""xiatb: an emulation testbed for XIA with live guest migration over XIA."""

__version__ = "0.1.0"
