"""What all rooms share: manifests, atomic files, seeds, options, devices, metric writers."""
