"""What holds for all tests."""

import signal

from hypothesis import settings

# Without a time limit for one example: on a busy machine any may miss it.
settings.register_profile("xiatb", deadline=None)
settings.load_profile("xiatb")

# A shell runs background jobs with SIGINT ignored, and programs that tests start would inherit that: those
# that are interrupted by tests would never end.
signal.signal(signal.SIGINT, signal.default_int_handler)
