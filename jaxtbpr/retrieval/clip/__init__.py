"""The towers of CLIP and EVA02-CLIP, their published sizes, weights in and out."""
