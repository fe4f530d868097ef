"""Many tasks on many machines: workers of Ray, and files in buckets."""
