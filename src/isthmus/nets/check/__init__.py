"""Whether cuts and merges are right: held against the masked whole, the network itself and plain means."""
