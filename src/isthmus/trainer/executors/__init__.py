"""How workers are run: all in this process in turn, or one process each over torch.distributed; the same bits."""
