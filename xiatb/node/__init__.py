"""What runs in one network namespace: frame I/O, router process, host stack, sockets."""
