"""Services of a guest: one process each, forked by the agent, controlled over a socket pair."""
