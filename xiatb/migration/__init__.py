"""Live migration of guests over XIA: control protocol, daemon, relays."""
