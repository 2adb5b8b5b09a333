"""What runs inside a guest: the agent, its services and their data patterns (light imports only)."""
