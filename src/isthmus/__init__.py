"""Independent Subnetwork Training: exact theory on quadratics, and a trainer that cuts a network over processes.

``isthmus.lab`` is the theory (NumPy only); ``isthmus.nets`` and ``isthmus.train`` are the trainer (PyTorch, the extra
``train``). Importing ``isthmus`` loads neither.
"""

__version__ = "0.1.0"
