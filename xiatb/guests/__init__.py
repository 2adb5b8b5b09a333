"""Guest images, libvirt per hypervisor host, the in-guest agent and services."""
