"""Training: losses, modality dropout and the Lightning modules."""
