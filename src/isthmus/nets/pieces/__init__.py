"""Who holds which units; subnetworks of these, and merging them."""
