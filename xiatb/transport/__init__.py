"""Sans-IO transport protocols: datagram, reliable stream, session migration."""
