"""What holds for all tests."""

from hypothesis import settings

# Without a time limit for one example: on a busy machine any may miss it.
settings.register_profile("xiatb", deadline=None)
settings.load_profile("xiatb")
