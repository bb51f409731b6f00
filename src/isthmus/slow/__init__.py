"""A slow network on one machine: hosts that are network namespaces, a line of a rate and a delay between them."""

from isthmus.slow.net import Net, hosts

__all__ = ["Net", "hosts"]
