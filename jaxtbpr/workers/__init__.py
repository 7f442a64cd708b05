"""Models that are asked: requests, the processes of torch, and what is made of their answers."""
