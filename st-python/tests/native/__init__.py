"""The native class, `shared_tensor.Stream`."""
