"""Mount engines on Ray: :mod:`trunnion_ray.data` for batches, :mod:`trunnion_ray.serve` for online traffic."""
