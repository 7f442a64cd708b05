"""The training loop, its compiled step, losses, optimizer and checkpoints."""
