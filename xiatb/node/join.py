"""Joining a network: how a host gets its router and a router its hosts (docs/protocol-join.md)."""

from __future__ import annotations

from xiatb.node.host_join import HostJoin
from xiatb.node.join_messages import Caps
from xiatb.node.router_join import JoinConfig, RouterJoin

__all__ = ["Caps", "HostJoin", "JoinConfig", "RouterJoin"]
