"""Networks and how they are cut: small dense subnetworks out of a whole, and merged back by ownership (PyTorch)."""
