"""What a CLIP says of data: scores of pairs, measures of sets."""
