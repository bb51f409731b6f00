"""A network as the graphs that torch exports, and the call they were made with."""
