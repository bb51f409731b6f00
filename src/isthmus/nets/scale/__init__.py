"""The whole network as pieces left it: factors folded into weights, statistics measured anew."""
