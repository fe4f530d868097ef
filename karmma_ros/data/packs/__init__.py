"""Data packs: shards with the windows of a data set, cropped and encoded once, for training."""
