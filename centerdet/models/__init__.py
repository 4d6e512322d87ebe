"""Backbones, neck and the network that joins them."""

from .backbones import BACKBONES, Backbone, LoadReport, build_backbone
from .network import Network, Outputs

__all__ = ["BACKBONES", "Backbone", "LoadReport", "Network", "Outputs", "build_backbone"]
