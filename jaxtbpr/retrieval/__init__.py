"""CLIP: towers, losses, training, features, metrics, evaluation."""
