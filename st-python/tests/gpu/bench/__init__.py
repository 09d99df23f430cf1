"""What the service costs on a GPU, beside shared-tensor 0.2.16: `python -m gpu.bench`."""
