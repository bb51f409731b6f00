"""Public networks, each with an example call: what `public_networks.py` traces and cuts."""
