"""The eBPF forwarder: loader and table mirroring."""
