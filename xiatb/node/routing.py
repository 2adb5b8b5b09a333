"""Routing inside and between ADs by signed link states (docs/protocol-routing.md)."""

from __future__ import annotations

from xiatb.node.adjacency import RoutingPort
from xiatb.node.linkstate import LinkState, RoutingConfig

__all__ = ["LinkState", "RoutingConfig", "RoutingPort"]
