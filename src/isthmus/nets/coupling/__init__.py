"""From a network to its coupling, and what one may ask of that."""
